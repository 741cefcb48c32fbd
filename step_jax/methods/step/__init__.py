"""StEP (Meshry et al. 2021): a style encoder pre-trained on triplets, a generator, a mapper."""

from step_jax.methods.method import Method, Option, Stage
from step_jax.methods.step.presets import PRESETS

_HERE = 'step_jax.methods.step'

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
      'what draws new styles (default: the one whose codes are closer to held-out ones)',
      default='',
      choices=('mapper', 'gaussian'),
    ),
  ),
  presets=PRESETS,
  session=f'{_HERE}.scores.session:StepSession',
  measures=f'{_HERE}.scores.measures:MEASURES',
  galleries=f'{_HERE}.galleries:make',
  warnings=f'{_HERE}.scores.health:warnings',
  programs=f'{_HERE}.programs:bundle',
  page=f'{_HERE}.page.page:open_page',
  tables=f'{_HERE}.reproduce.tables:TABLES',
  cases=f'{_HERE}.cases',
  quickstart=f'{_HERE}.quickstart:RECIPE',
)
