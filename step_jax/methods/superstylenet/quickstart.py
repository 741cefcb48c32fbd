"""Quickstart of SuperStyleNet on swatches whose regions have known styles."""

from step_jax import config as config_lib
from step_jax import data
from step_jax import files as files_lib
from step_jax.data import pictures, swatches
from step_jax.infer import files
from step_jax.methods.superstylenet import regions
from step_jax.quickstart import Recipe

_ARG = 'swatches_regional,size=64,features=squeezenet1_1'
# Narrow networks; codes at the size of the images; high learning rates for the short training.
FIELDS = {
  'features.taps': ('conv1', 'fire3'),
  'features.tap_weights': (1 / 2, 1 / 4),
  'codes.size': 64,
  'model.generator_width': 8,
  'model.discriminator_width': 16,
  'model.label_width': 32,
  'model.spade_width': 16,
  'optimizer.generator_lr': 2e-3,
  'optimizer.discriminator_lr': 2e-3,
  'every.log': 25,
  'every.evaluate': 250,
  'eval_pictures': 32,
}
STAGES = {'superstylenet': {'schedule.total_kimg': 6.0, 'schedule.fixed_kimg': 4.0}}
_SHOWN = 4


def show(workdir: files_lib.Path) -> str:
  """Generates images of some validation layouts; returns a description of the files."""
  images, maps = _write_inputs(workdir / 'inputs')
  files.translate(
    workdir, maps, workdir / 'transfer', styles=images, options={'style_labels': maps}
  )
  files.translate(
    workdir, maps, workdir / 'blends', interpolate=images[:2], options={'style_labels': maps[:2]}
  )
  files.translate(workdir, maps, workdir / 'samples', sample=6)
  edit = regions.Region(0, str(images[1]), str(maps[1]))
  files.translate(
    workdir,
    maps[:1],
    workdir / 'sky',
    styles=images[:1],
    options={'style_labels': maps[:1], 'region': [edit]},
  )
  return """\
  transfer/grid.png          layouts with the codes of other images
  blends/grid.png            from the codes of one image to those of another
  samples/grid.png           the code of each class from some training image
  sky/grid.png               one region with the code of another image
  superstylenet              the stage, with checkpoints, metrics and samples
These images are synthetic, and the networks are narrow. To train on your images and label maps:
  step-jax train superstylenet --data MY_IMAGES --config.data.classes=N --workdir runs/mine"""


def _write_inputs(folder: files_lib.Path) -> tuple[list[files_lib.Path], list[files_lib.Path]]:
  """Writes some validation images and their label maps as input files of commands."""
  files_lib.make_folder(folder)
  config = config_lib.load(f'{config_lib.stage_file("superstylenet")}:{_ARG}')
  split = data.open_config(config.data).split('val')
  colours = swatches.CLASS_COLORS.astype('uint8')
  images, maps = [], []
  for i in range(_SHOWN):
    images.append(folder / f'image_{i}.png')
    pictures.write_png(images[-1], split[i]['B'])
    maps.append(folder / f'map_{i}.png')
    pictures.write_png(maps[-1], colours[split[i]['labels']])
  return images, maps


RECIPE = Recipe(_ARG, FIELDS, STAGES, show)
