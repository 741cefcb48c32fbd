"""Galleries of validation images: reconstruction, transfer, interpolation, samples."""

import numpy as np

from step_jax import data
from step_jax.data import contents, pipeline
from step_jax.infer import gallery
from step_jax.methods.step import run as step_run


def make(translator: step_run.Translator, count: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
  """Grids of reconstruction, transfer, interpolation and samples: title -> uint8 `[H, W, 3]`.

  Args:
    translator: a trained run.
    count: maximum number of validation images.
    seed: seed of the samples.
  """
  config = translator.config
  pairs = contents.open_held_out(translator.folder, config.data)
  source, target = data.sides(pairs, config.data.direction)
  examples = list(
    pipeline.eval_examples(
      pairs.split('val'), {'source': source, 'target': target}, config.data.eval_crop, count
    )
  )
  sources = [example['source'] for example in examples]
  targets = [example['target'] for example in examples]
  styles = np.stack([translator.encode(picture) for picture in targets])
  blank = np.full_like(targets[0], 255)

  def in_styles(picture, codes):
    return [translator.translate(picture, z) for z in codes]

  rows = zip(sources, targets, strict=True)
  grids = {
    'Reconstruction: source, true image, translation in its own style': gallery.grid(
      [
        [picture, truth, translator.translate(picture, z)]
        for (picture, truth), z in zip(rows, styles, strict=True)
      ]
    ),
    'Transfer: each source in the style of each image of the first row': gallery.grid(
      [[blank, *targets], *([picture, *in_styles(picture, styles)] for picture in sources)]
    ),
    'Interpolation: from the style of the first image to that of the last': gallery.grid(
      [
        [picture, *translator.interpolate(picture, targets[0], targets[-1], 6)]
        for picture in sources
      ]
    ),
  }
  for how, sampler in translator.samplers.items():
    codes = sampler.draw(count, seed)
    grids[f'Samples: styles sampled by the {how}'] = gallery.grid(
      [[picture, *in_styles(picture, codes)] for picture in sources]
    )
  return grids
