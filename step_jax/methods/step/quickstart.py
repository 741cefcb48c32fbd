"""Quickstart of StEP: all four stages on synthetic pairs."""

from step_jax import data
from step_jax import files as files_lib
from step_jax.data import pictures
from step_jax.infer import files
from step_jax.quickstart import Recipe

# Narrow networks, L1 in addition to perceptual reconstruction, and high learning rates for the
# short training. Field -> value, for stages with this field.
FIELDS = {
  'features.taps': ('conv1', 'fire3'),
  'features.tap_weights': (1 / 2, 1 / 4),
  'model.encoder_width': 24,
  'model.generator_width': 16,
  'model.discriminator_width': 16,
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


def show(workdir: files_lib.Path) -> str:
  """Translates some validation images in several ways; returns a description of the files."""
  sources, styles = _write_inputs(workdir / 'inputs')
  for name, options in {
    'transfer': {'styles': styles[:4]},
    'interpolation': {'interpolate': styles[:2]},
    'samples': {'sample': 6},
  }.items():
    files.translate(workdir, sources, workdir / name, **options)
  return """\
  transfer/grid.png          inputs in the styles of other images
  interpolation/grid.png     from one style to another
  samples/grid.png           in styles sampled by the mapper
  pretrain, translate, finetune, mapper: the stages, with checkpoints, metrics and samples
These images are synthetic, and the networks are narrow. To train on your own images:
  step-jax train pretrain --data MY_PICTURES --workdir runs/mine"""


def _write_inputs(folder: files_lib.Path) -> tuple[list[files_lib.Path], list[files_lib.Path]]:
  """Writes some validation images as input files of `step-jax translate`."""
  files_lib.make_folder(folder)
  split = data.open_data('swatches', resize=64).split('val')
  written = {'A': [], 'B': []}
  for i in range(_SHOWN):
    for side, name in (('A', 'source'), ('B', 'style')):
      path = folder / f'{name}_{i}.png'
      pictures.write_png(path, split[i][side])
      written[side].append(path)
  return written['A'], written['B']


RECIPE = Recipe('swatches,size=64,features=squeezenet1_1', FIELDS, STAGES, show)
