"""Training jobs of the rows of a table."""

from step_jax import config as config_lib
from step_jax.reproduce.jobs import Job, Settings, Source, Table

# Share of the training images of a pre-trained row used in stage 2; the rest is for stage 3. The
# original uses 250 of 700 thousand.
_FROZEN_SHARE = 250 / 700


def of_row(table: Table, settings: Settings, row, seed: int) -> list[Job]:
  """The training jobs of a row, in order; rows may share jobs."""
  run = f'{row.run}/seed{seed}'
  target = settings.sources['target']
  start = ''
  jobs = []
  if row.encoder in settings.sources:
    encoder_run = f'encoder-{row.encoder}/seed{seed}'
    start = f'../../{encoder_run}/pretrain'
    # Neighbours do not depend on the seed.
    mined_by = f'encoder-{row.encoder}/seed0' if seed else ''
    config = _config('pretrain', settings, settings.sources[row.encoder], seed)
    config_lib.set_kimg(config, settings.pretrain_kimg)
    jobs.append(Job(encoder_run, config, mined_by, 'neighbors_*.npz'))
  shares = {'translate': _FROZEN_SHARE, 'finetune': 1 - _FROZEN_SHARE}
  for stage in row.stages:
    config = _config(stage, settings, target, seed, row.preset)
    config_lib.set_kimg(config, settings.kimg * (shares[stage] if row.encoder else 1))
    if stage == 'translate':
      config.init_from = start
    jobs.append(Job(run, config))
  # Scores of sampled styles need a mapper for each run.
  if {'diversity', 'realism'} & set(table.groups):
    config = _config('mapper', settings, target, seed)
    config.init_from = row.stages[-1]
    jobs.append(Job(run, config))
  return jobs


def _config(stage: str, settings: Settings, source: Source, seed: int, preset: str = ''):
  options = [source.name, f'features={settings.features}']
  options += [f'size={settings.size}'] if settings.size else []
  options += [f'preset={preset}'] if preset else []
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{",".join(options)}')
  own_fields = {field for field, _ in config_lib.flatten(config)}
  for field, text in settings.fields.items():
    if field in own_fields:
      config_lib.set_field(config, field, text)
  config.seed = seed
  if source.path:
    config.data.path = source.path
  if settings.weights and 'features' in config:
    config.features.weights = settings.weights
  return config


def facts(settings: Settings) -> list[str]:
  """Notes on how rows were trained, one sentence each."""
  return [
    f'Every generator was trained on {settings.kimg:g} thousand images at '
    f'{settings.size or "full"} px (a row with only stage 2: on the first 36 % of them); style '
    f'encoders were pre-trained on {settings.pretrain_kimg:g} thousand triplets, which is included '
    'in the training time.'
  ]
