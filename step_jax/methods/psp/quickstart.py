"""Quickstart of pSp: StyleGAN2, and an encoder from drawings into its latent space."""

from step_jax import data
from step_jax import files as files_lib
from step_jax.data import pictures
from step_jax.infer import files
from step_jax.quickstart import Recipe

# Narrow networks, and high learning rates for the short training.
FIELDS = {
  'data.palette': '',
  'features.taps': ('conv1', 'fire3'),
  'batch_size': 8,
  'model.max_channels': 32,
  'model.style_dim': 64,
  'model.mapping_depth': 4,
  'model.encoder_size': 64,
  'model.body_width': 16,
  'model.body_depths': (1, 1, 1, 1),
  'loss.lpips': 0.0,
  'every.log': 50,
  'every.evaluate': 1000,
  'eval_pictures': 64,
}
STAGES = {
  'stylegan2': {
    'schedule.total_kimg': 16.0,
    'optimizer.ema_decay': 0.99,
    'interval.path': 8,
  },
  'psp': {'schedule.total_kimg': 6.4, 'optimizer.learning_rate': 1e-3},
}
_SHOWN = 6


def show(workdir: files_lib.Path) -> str:
  """Translates some validation drawings in several ways; returns a description of the files."""
  folder = workdir / 'inputs'
  files_lib.make_folder(folder)
  split = data.open_data('swatches', resize=32).split('val')
  sources = []
  for i in range(_SHOWN):
    sources.append(folder / f'source_{i}.png')
    pictures.write_png(sources[-1], split[i]['A'])
  files.translate(workdir, sources, workdir / 'translation')
  files.translate(workdir, sources, workdir / 'samples', sample=6)
  return """\
  translation/grid.png       drawings, and their translations
  samples/grid.png           the same with sampled styles in the finer layers
  stylegan2, psp             the stages, with checkpoints, metrics and samples
These images are synthetic, and the networks are narrow. To train on your own images:
  step-jax train stylegan2 --data MY_IMAGES --size 256 --workdir runs/mine
  step-jax train psp --workdir runs/mine"""


RECIPE = Recipe('swatches,size=32,features=squeezenet1_1', FIELDS, STAGES, show)
