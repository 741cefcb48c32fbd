"""Galleries of validation images: outputs, style mixing, interpolation, sampled styles."""

import numpy as np

from step_jax.data import contents
from step_jax.infer import gallery
from step_jax.methods.psp import inputs
from step_jax.methods.psp.run import PspRun


def make(run: PspRun, count: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
  """Grids of outputs, mixing, interpolation and samples: title -> uint8 `[H, W, 3]`.

  Args:
    run: a trained run.
    count: maximum number of examples.
    seed: random seed of the sampled styles.
  """
  drawn = run.draw(count, seed)
  grids = {'Generator: images of drawn styles': gallery.grid([list(run.generate(drawn))])}
  if 'encoder' not in run.params:
    return grids
  opened = contents.open_held_out(run.folder, run.config.data)
  examples = list(inputs.eval_examples(run.config, opened, 'val', count))
  sources = [example['source'] for example in examples]
  shown = [inputs.shown(run.config, source) for source in sources]
  rows = zip(shown, examples, sources, strict=True)
  line = run.interpolate(sources[0], sources[0], sources[-1], 6, layers='0-')
  return {
    'Source, output, true image': gallery.grid(
      [[picture, run.translate(source), example['target']] for picture, example, source in rows]
    ),
    'Mixing: the finer layers of each source in drawn styles': gallery.grid(
      [
        [picture, *(run.translate(source, code) for code in drawn)]
        for picture, source in zip(shown, sources, strict=True)
      ]
    ),
    'Interpolation in W+: from the first source to the last': gallery.grid(
      [[shown[0], *line, shown[-1]]]
    ),
    **grids,
  }
