"""The tables of the paper: their rows and groups of scores.

The printed tables of the paper could not be read completely. Rows are inferred from its text, its
project page and the options of the released code (see `methods/step/presets.py`).
"""

import dataclasses
import functools

from step_jax.methods.step.reproduce import jobs
from step_jax.reproduce.jobs import Table as _Table

Table = functools.partial(_Table, jobs=jobs.of_row, facts=jobs.facts)


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of a table.

  Attributes:
    title: title in the table.
    preset: preset of the method.
    encoder: data set that the style encoder is pre-trained on: `target`, `related` or `unrelated`;
      `none`: randomly initialised; empty if the preset trains it from scratch.
    stage: stage that is scored.
  """

  title: str
  preset: str
  encoder: str = ''
  stage: str = 'translate'

  @property
  def run(self) -> str:
    """Folder of its run; rows that differ only in the scored stage share it."""
    return f'{self.preset}-{self.encoder}' if self.encoder else self.preset

  @property
  def needs(self) -> tuple[str, ...]:
    """Data sets that it is trained on."""
    return ('target', *((self.encoder,) if self.encoder not in ('', 'none', 'target') else ()))

  @property
  def stages(self) -> tuple[str, ...]:
    """Stages of its run; without pre-training, one stage trains everything on as many images."""
    return ('translate', 'finetune') if self.encoder else ('translate',)


_STEP = 'step_v3'  # The released default.
_FLOOR = Row('pix2pix, no style', 'pix2pix')

TABLES = {
  'reconstruction': Table(
    'Reconstruction of held-out images from their own style (Table 1)',
    (
      _FLOOR,
      Row('BicycleGAN', 'bicyclegan_v1'),
      Row('MUNIT-p', 'munit_p_v1'),
      Row('StEP, encoder frozen (stage 2)', _STEP, 'target'),
      Row('StEP, fine-tuned (stage 3)', _STEP, 'target', 'finetune'),
    ),
    ('reconstruction', 'style'),
  ),
  'ablation': Table(
    'From BicycleGAN and MUNIT-p to StEP, term by term (sec. 4.5)',
    (
      _FLOOR,
      Row('BicycleGAN v1', 'bicyclegan_v1'),
      Row('BicycleGAN v2: no variance', 'bicyclegan_v2'),
      Row('BicycleGAN v3: L2 for KL', 'bicyclegan_v3'),
      Row('MUNIT-p v1', 'munit_p_v1'),
      Row('MUNIT-p v2: no variance', 'munit_p_v2'),
      Row('MUNIT-p v3: L2 for KL', 'munit_p_v3'),
      Row('StEP v1: MUNIT-p v3, encoder pre-trained', 'step_v1', 'target', 'finetune'),
      Row('StEP v2: no cyclic reconstruction', 'step_v2', 'target', 'finetune'),
      Row('StEP v3: no random styles', 'step_v3', 'target', 'finetune'),
      Row('StEP v4: no L2 on codes', 'step_v4', 'target', 'finetune'),
    ),
    ('reconstruction', 'style'),
  ),
  'diversity': Table(
    'Diversity of the translations of one input',
    (
      Row('BicycleGAN', 'bicyclegan_v1'),
      Row('MUNIT-p', 'munit_p_v1'),
      Row('StEP, encoder frozen (stage 2)', _STEP, 'target'),
      Row('StEP, fine-tuned (stage 3)', _STEP, 'target', 'finetune'),
    ),
    ('diversity', 'realism'),
  ),
  'generalisation': Table(
    'Style encoders pre-trained on other images (sec. 4.4)',
    tuple(
      Row(f'{title}, {state}', _STEP, encoder, stage)
      for encoder, title in {
        'target': 'pre-trained on the target set',
        'related': 'on a related set',
        'unrelated': 'on an unrelated set',
        'none': 'not pre-trained',
      }.items()
      for stage, state in {'translate': 'frozen', 'finetune': 'fine-tuned'}.items()
    ),
    ('reconstruction', 'style'),
  ),
}
