"""Grids of validation images translated by a trained run of any method."""

import numpy as np

from step_jax import methods
from step_jax.data import contents, pipeline
from step_jax.evaluate import scores
from step_jax.infer import gallery


def make(run: methods.Run, count: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
  """Grids of reconstructions, style transfer and samples: title -> uint8 `[H, W, 3]`.

  Args:
    run: a trained run.
    count: maximum number of validation images.
    seed: random seed of the samples.
  """
  method = methods.METHODS[run.method]
  settings = run.config.data
  opened = contents.open_held_out(run.folder, settings)
  roles = methods.roles(run.config, opened)
  examples = list(pipeline.eval_examples(opened.split('val'), roles, settings.eval_crop, count))
  sources = [example[method.source_role] for example in examples]
  shown, targets = list(map(gallery.shown, sources)), [example['target'] for example in examples]
  pairs = list(zip(sources, shown, strict=True))
  codes = [methods.encode(run, e) if method.needs_code else None for e in examples]
  rows = [
    [picture, target, run.translate(source, code)]
    for source, code, picture, target in zip(sources, codes, shown, targets, strict=True)
  ]
  grids = {'Reconstruction: source, true image, translation in its own style': gallery.grid(rows)}
  if method.needs_code:
    header = [np.full_like(targets[0], 255), *targets]
    grids['Transfer: each source in the style of each image of the first row'] = gallery.grid(
      [header, *([picture, *_in_styles(run, x, codes)] for x, picture in pairs)]
    )
  drawn = run.draw(count, seed)
  in_turn = [scores.at(drawn, i) for i in range(count)]
  grids['Samples: each source in drawn styles'] = gallery.grid(
    [[picture, *_in_styles(run, x, in_turn)] for x, picture in pairs]
  )
  return grids


def _in_styles(run: methods.Run, source: np.ndarray, codes: list) -> list[np.ndarray]:
  return [run.translate(source, code) for code in codes]
