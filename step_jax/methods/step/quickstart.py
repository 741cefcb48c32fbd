"""How StEP is shown by `step-jax quickstart`: all four stages on synthetic pairs."""

from step_jax import data
from step_jax import files as files_lib
from step_jax.data import pictures
from step_jax.infer import files
from step_jax.quickstart import Recipe

# Narrow networks; reconstruction by pixels as well as by features. Training is so short that it
# pays to learn faster than over the hundreds of kimg of a real run. Field -> value, where a stage
# has it.
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
  """Translates some validation images in several ways; says what was made."""
  sources, styles = _write_inputs(workdir / 'inputs')
  for name, options in {
    'transfer': {'styles': styles[:4]},
    'interpolation': {'interpolate': styles[:2]},
    'samples': {'sample': 6},
  }.items():
    files.translate(workdir, sources, workdir / name, **options)
  return """\
  transfer/grid.png          inputs in the styles of other pictures
  interpolation/grid.png     from one style to another
  samples/grid.png           in styles drawn by the mapper
  pretrain, translate, finetune, mapper: the stages, with checkpoints, metrics and samples
These pictures are synthetic and the networks narrow. Now your own:
  step-jax train pretrain --data MY_PICTURES --workdir runs/mine"""


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


RECIPE = Recipe('swatches,size=64,features=squeezenet1_1', FIELDS, STAGES, show)
