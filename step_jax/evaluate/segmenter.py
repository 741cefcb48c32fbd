"""A small segmentation network, trained on real images, that predicts the labels of outputs."""

from collections.abc import Iterator
import hashlib
import json
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from step_jax import data, files, images, places
from step_jax.data import augment, pipeline
from step_jax.models.layers import upscale

log = logging.getLogger(__name__)

# Settings of its training; part of its name in the cache and of the protocols.
SETTINGS = {'version': 1, 'width': 16, 'steps': 400, 'batch': 8, 'rate': 3e-3, 'crop': 64}


class Segmenter(nn.Module):
  """U-Net with three scales: images `[B, H, W, 3]` in [-1, 1] to logits `[B, H, W, L]`.

  Attributes:
    num_labels: number of labels, L.
    width: channels at full size.
  """

  num_labels: int
  width: int = SETTINGS['width']

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    skips = []
    for i in range(3):
      if i:
        height, width = x.shape[1:3]
        x = nn.max_pool(images.pad_to_multiple(x, 2), (2, 2), (2, 2))
      x = self._block(x, self.width * 2**i)
      skips.append(x)
    for i in (1, 0):
      height, width = skips[i].shape[1:3]
      x = upscale(x)[:, :height, :width]
      x = self._block(jnp.concatenate([x, skips[i]], axis=-1), self.width * 2**i)
    return nn.Conv(self.num_labels, (1, 1))(x)

  def _block(self, x, features):
    for _ in range(2):
      x = nn.relu(nn.GroupNorm(num_groups=4)(nn.Conv(features, (3, 3))(x)))
    return x


def trained(
  dataset: data.PairSet, side: str, num_labels: int, crop: tuple[int, int]
) -> tuple[dict, str]:
  """Parameters of a segmenter trained on the training images of a data set, and their digest.

  It is trained once, on one device, and stored in the cache of this machine.

  Args:
    dataset: data set with label maps.
    side: image of an example, `A` or `B`.
    num_labels: number of labels.
    crop: maximum height and width of training crops, no larger than the smallest image.
  """
  crop = tuple(min(length, SETTINGS['crop']) for length in crop)
  settings = {
    **SETTINGS, 'images': dataset.fingerprint, 'side': side, 'labels': num_labels, 'crop': crop
  }  # fmt: skip
  key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
  path = places.cache() / 'segmenters' / f'{key}.npz'
  module = Segmenter(num_labels)
  like = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *crop, 3)))['params']
  leaves, tree = jax.tree.flatten(like)
  arrays = _read(path, leaves)
  if arrays is None:
    log.info('%s: training the segmentation network for scores, once', path)
    params = _train(module, _batches(dataset, side, crop), crop)
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_arrays(path, {str(i): array for i, array in enumerate(arrays)})
  sha256 = hashlib.sha256()
  for array in arrays:
    sha256.update(array.tobytes())
  return tree.unflatten(arrays), sha256.hexdigest()[:16]


def _read(path, leaves) -> list[np.ndarray] | None:
  try:
    with np.load(path) as stored:
      arrays = [stored[str(i)] for i in range(len(leaves))]
  except FileNotFoundError:
    return None
  except Exception as error:  # Parsers may raise anything on damaged files.
    log.warning('%s: is damaged (%s); training it again', path, error)
    return None
  fits = all(array.shape == leaf.shape for array, leaf in zip(arrays, leaves, strict=True))
  return arrays if fits else None


def _batches(dataset, side, crop) -> Iterator[dict[str, np.ndarray]]:
  split = dataset.split('train')

  def load(index, rng):
    example = split[int(index)]
    return augment.augment({'image': example[side], 'labels': example['labels']}, rng, crop)

  return pipeline.train_batches(np.arange(len(split)), load, SETTINGS['batch'], 0)


def _train(module, batches, crop) -> dict:
  adam = optax.adam(optax.cosine_decay_schedule(SETTINGS['rate'], SETTINGS['steps']))

  def loss(params, batch):
    logits = module.apply({'params': params}, images.to_float(batch['image']))
    labels = batch['labels'].astype(jnp.int32)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

  @jax.jit
  def step(params, state, batch):
    grads = jax.grad(loss)(params, batch)
    updates, state = adam.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params = module.init(jax.random.key(0), jnp.zeros((1, *crop, 3)))['params']
  state = adam.init(params)
  for _ in range(SETTINGS['steps']):
    params, state = step(params, state, next(batches))
  return params


def confusion(module: Segmenter, params: dict, image: jax.Array, labels: jax.Array) -> jax.Array:
  """Confusion matrix in pixels, float32 `[B, L, L]`: true label, predicted label.

  Args:
    module: the network.
    params: its parameters.
    image: uint8 `[B, H, W, 3]`.
    labels: int `[B, H, W]`.
  """
  logits = module.apply({'params': params}, images.to_float(image))
  read = jax.nn.one_hot(jnp.argmax(logits, axis=-1), module.num_labels)
  true = jax.nn.one_hot(labels.astype(jnp.int32), module.num_labels)
  return jnp.einsum('bhwl,bhwm->blm', true, read)


def mean_iou(confusion_: np.ndarray) -> float:
  """Mean intersection over union of the labels that occur, from a confusion matrix `[L, L]`."""
  overlap = np.diag(confusion_)
  union = confusion_.sum(axis=0) + confusion_.sum(axis=1) - overlap
  occurs = confusion_.sum(axis=1) > 0
  return float(np.mean(overlap[occurs] / union[occurs]))


def pixel_accuracy(confusion_: np.ndarray) -> np.ndarray:
  """Fraction of correctly predicted pixels: `[..., L, L] -> [...]`."""
  right = np.trace(confusion_, axis1=-2, axis2=-1)
  return right / confusion_.sum(axis=(-2, -1))
