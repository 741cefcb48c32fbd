"""From a row to the stages that have to be trained for it."""

from step_jax import config as config_lib
from step_jax.reproduce.jobs import Job, Settings, Source, Table

# Of the pictures of a pre-trained row, those that stage 2 sees; stage 3 sees the rest. As the
# original's 250 of 700 thousand.
_FROZEN_SHARE = 250 / 700


def of_row(table: Table, settings: Settings, row, seed: int) -> list[Job]:
  """What has to be trained for a row, in order; some of it other rows need too."""
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
  # Where styles are drawn, every run needs a mapper.
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
  """What a reader must know of how rows were trained."""
  return [
    f'Every generator saw {settings.kimg:g} thousand pictures at {settings.size or "full"} px '
    '(a row of stage 2 alone: the first 36 % of them); style encoders were pre-trained on '
    f'{settings.pretrain_kimg:g} thousand triplets, which counts as time to train.'
  ]
