"""Scores of a trained run on a split of its data, written to `results.json`."""

from collections.abc import Mapping
import importlib.metadata
import json
import logging
import pathlib

import jax
import numpy as np

from step_jax import data, infer, weights
from step_jax.data import pipeline
from step_jax.evaluate import lpips, reconstruction, scores
from step_jax.methods import networks

log = logging.getLogger(__name__)

FILE = 'results.json'
_PACKAGES = ('step_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'pillow')


def evaluate(
  workdir: str | pathlib.Path,
  split: str = 'val',
  which: str = 'latest',
  path: str = '',
  batch_size: int = 8,
) -> dict:
  """Scores a run and writes `results.json` to the folder of the stage that was scored.

  Args:
    workdir: of the run, or the folder of a stage.
    split: of its data set.
    which: `latest` or `best` checkpoint.
    path: data set, where it is not the one that the run was trained on.
    batch_size: pictures at a time.

  Returns:
    What the file holds: `scores` maps each score of `reconstruction.make_score` to its `mean`, and
    to its value for every picture in the order of `pictures`.

  Raises:
    UserError: the run, its data or its weights are not there.
  """
  folder = infer.find_stage(workdir)
  translator = infer.load(folder, which)
  config = translator.config
  found = data.open_data(
    path or config.data.path, config.data.layout, config.data.val_fraction, config.data.resize
  )
  source, target = data.sides(found, config.data.direction)
  features = weights.load_features(
    config.features.net, config.features.taps, config.features.weights
  )
  learned = lpips.available()
  score = reconstruction.make_score(
    networks.style_encoder(config),
    networks.generator(config),
    features.module,
    dict(zip(config.features.taps, config.features.tap_weights, strict=True)),
    learned,
  )
  frozen = {'features': features.params, **{item.name: item.params for item in learned}}
  frozen = jax.device_put(frozen)
  examples = found.split(split)
  roles = {'source': source, 'target': target}
  pictures = pipeline.eval_examples(examples, roles, config.data.eval_crop)
  values = scores.collect(
    lambda batch: score(translator.params, frozen, {key: batch[key] for key in (*roles, 'mask')}),
    pipeline.eval_batches(pictures, min(batch_size, len(examples))),
  )
  results = {
    'stage': config.stage,
    'step': translator.step,
    'checkpoint': which,
    'data': {'path': path or config.data.path, 'split': split, 'fingerprint': found.fingerprint},
    'features': features.label,
    'lpips': {item.name: item.label for item in learned},
    'pictures': examples.names(),
    'scores': {
      name: {'mean': float(np.nanmean(value)), 'values': value.tolist()}
      for name, value in sorted(values.items())
    },
    'versions': {package: importlib.metadata.version(package) for package in _PACKAGES},
  }
  part = folder / f'.{FILE}.part'
  part.write_text(json.dumps(results, indent=2) + '\n')
  part.replace(folder / FILE)
  return results


def read(folder: pathlib.Path) -> dict | None:
  """The results in a stage's folder, or None."""
  path = folder / FILE
  return json.loads(path.read_text()) if path.is_file() else None


def table(results: Mapping) -> str:
  """The mean scores as lines of text."""
  lines = [
    f'{results["stage"]} step {results["step"]}, {len(results["pictures"])} pictures of '
    f'{results["data"]["split"]}, features={results["features"]}'
  ]
  width = max(map(len, results['scores']))
  lines += [f'  {name:<{width}}  {score["mean"]:.4f}' for name, score in results['scores'].items()]
  return '\n'.join(lines)
