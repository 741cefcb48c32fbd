"""All four stages on the built-in synthetic pairs, in minutes on a laptop CPU."""

import logging
import os
import time

from step_jax import config as config_lib
from step_jax import data, methods, report
from step_jax import files as files_lib
from step_jax.data import pictures
from step_jax.evaluate import results
from step_jax.infer import files

log = logging.getLogger(__name__)

ARG = 'swatches,size=64,features=squeezenet1_1'
# Narrow networks, and features of a random net, since there may be no network to get a trained one
# from; with those, reconstruction is better left to pixels. Training is so short that it pays to
# learn faster than over the hundreds of kimg of a real run. Field -> value, where a stage has it.
FIELDS = {
  'features.weights': 'random',
  'features.taps': ('conv1', 'fire3'),
  'features.tap_weights': (1 / 2, 1 / 4),
  'model.encoder_width': 24,
  'model.generator_width': 16,
  'model.discriminator_width': 16,
  'loss.recon_perceptual': 0.0,
  'loss.recon_l1': 10.0,
  'optimizer.generator_lr': 6e-3,
  'optimizer.discriminator_lr': 6e-3,
  'every.log': 25,
  'every.evaluate': 250,
  'eval_pictures': 32,
}
STAGES = {
  'pretrain': {'schedule.total_kimg': 2.4, 'schedule.fixed_kimg': 2.4},
  'translate': {'schedule.total_kimg': 4.8, 'schedule.fixed_kimg': 3.2},
  'finetune': {'schedule.total_kimg': 2.4, 'schedule.fixed_kimg': 0.8},
  'mapper': {'schedule.epochs': 200},
}
_SHOWN = 6


def run(workdir: str | os.PathLike) -> None:
  """Trains, evaluates, translates and reports in `workdir`; prints what was made and where."""
  started = time.monotonic()
  workdir = files_lib.path(workdir)
  for stage, fields in STAGES.items():
    log.info('--- stage %s', stage)
    methods.train(make_config(stage, fields), workdir)
  found = results.evaluate(workdir)
  sources, styles = _write_inputs(workdir / 'inputs')
  for name, options in {
    'transfer': {'styles': styles[:4]},
    'interpolation': {'interpolate': styles[:2]},
    'samples': {'sample': 6},
  }.items():
    files.translate(workdir, sources, workdir / name, **options)
  page = report.write(workdir)
  print(results.table(found))
  print(
    f"""
Done in {(time.monotonic() - started) / 60:.1f} minutes. Made in {workdir}:
  report.html                the whole run on one page: {files_lib.resolve(page)}
  transfer/grid.png          inputs in the styles of other pictures
  interpolation/grid.png     from one style to another
  samples/grid.png           in styles drawn by the mapper
  pretrain, translate, finetune, mapper: the stages, with checkpoints, metrics and samples
These pictures are synthetic and the networks narrow. Now your own:
  step-jax train pretrain --data MY_PICTURES --workdir runs/mine"""
  )


def make_config(stage: str, fields: dict) -> config_lib.ConfigDict:
  """The configuration of a stage, with `FIELDS` and then `fields` set where it has them."""
  config = config_lib.load(f'{config_lib.stage_file(stage)}:{ARG}')
  known = dict(config_lib.flatten(config))
  values = {field: value for field, value in FIELDS.items() if field in known}
  config.update_from_flattened_dict(values | fields)
  return config


def _write_inputs(folder: files_lib.Path) -> tuple[list[files_lib.Path], list[files_lib.Path]]:
  """Writes some validation pictures as files: what `step-jax translate` would be given."""
  files_lib.make_folder(folder)
  split = data.open_data('swatches', resize=64).split('val')
  written = {'A': [], 'B': []}
  for i in range(_SHOWN):
    for side, name in (('A', 'source'), ('B', 'style')):
      path = folder / f'{name}_{i}.png'
      pictures.write_png(path, split[i][side])
      written[side].append(path)
  return written['A'], written['B']
