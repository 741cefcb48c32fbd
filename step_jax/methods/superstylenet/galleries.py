"""Galleries of validation images: reconstructions, edits of regions, transfer, samples."""

import numpy as np

from step_jax import data
from step_jax.data import contents, pipeline
from step_jax.infer import gallery
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.run import RegionRun


def make(run: RegionRun, count: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
  """Grids by title, uint8 `[H, W, 3]`: reconstruction, region edits, transfer, blends, samples.

  Args:
    run: a trained run.
    count: maximum number of validation images.
    seed: seed of the samples.
  """
  settings = run.config.data
  dataset = contents.open_held_out(run.folder, settings)
  _, side = data.sides(dataset, settings.direction)
  examples = list(
    pipeline.eval_examples(
      dataset.split('val'), {'image': side, 'labels': 'labels'}, settings.eval_crop, count
    )
  )
  codes = [run.encode(example['image'], example['labels']) for example in examples]
  shown = [[gallery.shown(example['labels']), example['image']] for example in examples]
  blank = np.full_like(examples[0]['image'], 255)

  def rows(styles_of):
    """One row per example: label map, image, and the layout in some styles."""
    return gallery.grid(
      [
        [*pair, *run.draw_styles(example['labels'], _stack(styles_of(i)))]
        for i, (pair, example) in enumerate(zip(shown, examples, strict=True))
      ]
    )

  header = gallery.grid([[blank, blank, *(example['image'] for example in examples)]])
  drawn = run.draw(count, seed)
  return {
    'Reconstruction: label map, image, drawn with its own codes, with the mean codes': rows(
      lambda i: [codes[i], run.mean]
    ),
    f'Edits of one region, the largest ({_named(examples)}): its code from each image on top': (
      _under(header, rows(lambda i: [_edited(codes[i], x, examples[i]['labels']) for x in codes]))
    ),
    'Transfer: each layout with all codes of each image on top': _under(
      header, rows(lambda i: codes)
    ),
    'Blends: from the own codes to those of the next image': rows(
      lambda i: [
        codes[i].interpolate(codes[(i + 1) % len(codes)], float(share))
        for share in np.linspace(0, 1, count)
      ]
    ),
    'Samples: the code of each label from some training image': rows(
      lambda i: [RegionCodes(drawn.codes[k], drawn.valid[k]) for k in range(count)]
    ),
  }


def _named(examples) -> str:
  return 'labels ' + ', '.join(str(_largest(example['labels'])) for example in examples)


def _largest(labels: np.ndarray) -> int:
  return int(np.argmax(np.bincount(labels.reshape(-1))))


def _edited(codes: RegionCodes, other: RegionCodes, labels: np.ndarray) -> RegionCodes:
  label = _largest(labels)
  return codes.with_region(label, other) if other.valid[label] else codes


def _stack(codes: list[RegionCodes]) -> RegionCodes:
  return RegionCodes(*map(np.stack, zip(*codes, strict=True)))


def _under(header: np.ndarray, image: np.ndarray) -> np.ndarray:
  """A grid below a header of at most its width."""
  wide = np.full((header.shape[0], image.shape[1], 3), 255, np.uint8)
  wide[:, : header.shape[1]] = header[:, : image.shape[1]]
  return np.concatenate([wide, image])
