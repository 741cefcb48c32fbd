"""StEP (Meshry et al. 2021): a style encoder pre-trained on triplets, a generator, a mapper."""

from step_jax.methods.method import Bench, Importer, Method, Option, Stage, positive
from step_jax.methods.step.presets import PRESETS

_HERE = 'step_jax.methods.step'
_SIZES = ('size', 'batch', 'width', 'dtype')

METHOD = Method(
  name='step',
  title='StEP: pre-trained style encoder, generator, fine-tuning, mapper of styles',
  stages=(
    Stage('pretrain', f'{_HERE}.stages.pretrain'),
    Stage('translate', f'{_HERE}.stages.translate'),
    Stage('finetune', f'{_HERE}.stages.translate'),
    Stage('mapper', f'{_HERE}.stages.mapper'),
  ),
  translating=('finetune', 'translate'),
  run=f'{_HERE}.run:load',
  options=(
    Option(
      'sampler',
      'sampler of new styles (default: the one with codes closer to held-out codes)',
      of='draw',
      default='',
      choices=('mapper', 'gaussian'),
    ),
    Option(
      'tile',
      'translate images of any size in tiles of this side in px, such as 512, with little memory '
      'but three times the computation; images keep their size (default: whole images)',
      kind=positive,
      metavar='PX',
    ),
  ),
  presets=PRESETS,
  session=f'{_HERE}.scores.session:StepSession',
  measures=f'{_HERE}.scores.measures:MEASURES',
  galleries=f'{_HERE}.galleries:make',
  warnings=f'{_HERE}.scores.health:warnings',
  programs=f'{_HERE}.programs:bundle',
  restore=f'{_HERE}.programs:restore',
  page=f'{_HERE}.page.page:open_page',
  tables=f'{_HERE}.reproduce.tables:TABLES',
  benches={
    'pretrain_step': Bench(dict(size=128, batch=12), stages=('pretrain',), peers=('torch',)),
    'translate_step': Bench(
      dict(size=128, batch=4),
      fields=(*_SIZES, 'features', 'stage'),
      stages=('finetune', 'translate'),
      peers=('torch',),
    ),
    'inference': Bench(dict(size=256, batch=8), peers=('torch',)),
    'mining': Bench(dict(count=400), ('count', 'features'), peers=('torch',), exact=True),
    'imle': Bench(dict(count=5000), ('count',), peers=('torch',), exact=True),
  },
  importers=(
    Importer(
      'import-step',
      'import a TensorFlow checkpoint of the original StEP',
      'CHECKPOINT',
      f'{_HERE}.original.import_step:import_step',
      options=(
        Option('data', 'images, for evaluation and further training'),
        Option('preset', 'settings of a known data set'),
        Option('codes', 'zs_train.npy, for a mapper'),
      ),
    ),
  ),
  cases=f'{_HERE}.cases',
  quickstart=f'{_HERE}.quickstart:RECIPE',
)
