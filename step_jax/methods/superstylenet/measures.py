"""Scores of SuperStyleNet: reconstructed, restyled and edited images."""

from collections.abc import Iterator, Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from step_jax import data, images
from step_jax.data import swatches
from step_jax.evaluate import metrics, restyled, segmenter
from step_jax.evaluate.scores import Score, Skipped, mean_score, stack
from step_jax.evaluate.session import Session
from step_jax.methods.superstylenet import layers, networks, probe, stage
from step_jax.methods.superstylenet.codes import RegionCodes

_SMALLEST_SSIM = 11


class RegionSession(Session):
  """Codes are `RegionCodes`, `[N, L, 512]`."""

  @property
  def sampling(self) -> str:
    """How styles are sampled, for definitions."""
    return 'the code of every label is that of a training image, each drawn by itself'

  @functools.cache  # noqa: B019
  def codes(self, split: str) -> RegionCodes:
    """Codes `[N, L, 512]` of a split, from the cache if possible."""
    codes = stage.kept_codes(self.config, self.pair_set, split, self.mesh)
    each = [codes[i] for i in range(len(codes))]
    return RegionCodes(*map(np.stack, zip(*each, strict=True)))


def measure(session: RegionSession) -> Iterator[Score | Skipped]:
  """Yields the groups `reconstruction` and `style`."""
  net, digest = segmenter.trained(
    session.pair_set, _side(session), session.run.num_labels, session.config.data.crop
  )
  values = stack(_rows(session, net))
  mean = lambda name, measured, *args, **facts: mean_score(
    session.protocol(name, *args, **facts), measured
  )
  for name in ('psnr', 'ssim', 'l1', 'nrmse'):
    if name in values:
      yield mean(f'{name}/uint8', values[name])
    else:
      yield Skipped(name, f'images are smaller than {_SMALLEST_SSIM} px')
  yield from restyled.rebuilt_scores(session, values)
  reader = {'segmenter': f'{digest}, {segmenter.SETTINGS}'}
  for suffix, name in (('', 'confusion'), ('-photos', 'confusion_photos')):
    table = values[name].astype(np.float64)
    protocol = session.protocol(f'segmentation-miou{suffix}', **reader)
    yield Score(protocol, segmenter.mean_iou(table.sum(axis=0)))
    yield mean(f'segmentation-accuracy{suffix}', segmenter.pixel_accuracy(table), **reader)
  yield from _style(session, values, mean)
  yield from _probe(session)


def _style(session, values, mean) -> Iterator[Score | Skipped]:
  alone = np.isnan(values['psnr_other'])
  if alone.all():
    yield Skipped('style', 'there is one image only')
    return
  inside, outside = (np.nanmean(values[name]) for name in ('inside', 'outside'))
  locality = float(inside / outside) if outside else float('nan')
  yield Score(session.protocol('edit-locality/uint8'), locality)
  yield from restyled.style_scores(session, values)


def _probe(session: RegionSession) -> Iterator[Score]:
  """Score of predicting the known colours of built-in images from codes."""
  path = session.config.data.path
  if path not in swatches.SETS:
    return
  names = {split: session.pair_set.split(split).names() for split in ('train', session.split)}
  codes = {split: session.codes(split) for split in names}
  regional = path != swatches.SETS[0]
  yield Score(
    session.protocol('probe-region-colour'),
    probe.r_squared(
      codes['train'], names['train'], codes[session.split], names[session.split], regional
    ),
  )


def _side(session: Session) -> str:
  return data.sides(session.pair_set, session.config.data.direction)[1]


def _rows(session: RegionSession, net: Mapping) -> Iterator[dict[str, np.ndarray]]:
  """Scores of every image, in order."""
  reader = segmenter.Segmenter(session.run.num_labels)
  module = session.run.generator

  def rebuild(params, net, mean, batch):
    drawn = draw_edits(module, params, mean, batch)
    return {name: drawn[name] for name in restyled.IMAGES} | score(reader, net, drawn, batch)

  codes = session.codes(session.split)
  examples = (
    {**example, 'codes': codes.codes[i], 'valid': codes.valid[i]}
    for i, example in enumerate(session.pictures(session.split, roles=('target', 'labels')))
  )
  constants = session.params, session.put(net), session.put(session.run.mean.codes)
  return restyled.with_lpips(session, session.stream(rebuild, constants, examples))


def draw_edits(
  module, params: Mapping, mean: jax.Array, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """Generates images with own codes, those of the next image, and one region of the next.

  Args:
    module: the generator.
    params: its variables.
    mean: codes for labels without a code in an image, `[L, 512]`.
    batch: `target` uint8 `[B, H, W, 3]`, `labels` `[B, H, W]`, raw `codes` `[B, L, 512]`, `valid`
      `[B, L]`.

  Returns:
    uint8 images `own`, `other`, `edited`, `target`, `next`; and `region`, bool `[B, H, W]`: the
    edited region, the largest one with a code in both images.
  """
  labels = batch['labels'].astype(jnp.int32)
  valid, turned = batch['valid'], jnp.roll(batch['valid'], -1, axis=0)
  own = jnp.where(valid[..., None], batch['codes'], mean)
  other = jnp.where(turned[..., None], jnp.roll(batch['codes'], -1, axis=0), mean)
  sizes = jnp.sum(layers.one_hot(labels, len(mean)), axis=(1, 2))
  label = jnp.argmax(jnp.where(valid & turned, sizes, -1.0), axis=1)
  chosen = layers.one_hot(label, len(mean))[..., None]
  edited = jnp.where(chosen > 0, other, own)
  layout = module.apply(params, labels, method='layout')
  draw = lambda codes: images.to_uint8(networks.draw(module, params, labels, codes, layout=layout))
  return {
    'own': draw(own),
    'other': draw(other),
    'edited': draw(edited),
    'target': batch['target'],
    'next': jnp.roll(batch['target'], -1, axis=0),
    'region': labels == label[:, None, None],
  }


def score(
  reader: segmenter.Segmenter,
  net: Mapping,
  drawn: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """Scores of the output of `draw_edits`; NaN if a score needs another image and there is none."""
  own, target, region = drawn['own'], drawn['target'], drawn['region']
  difference = own.astype(jnp.float32) - target
  norm = lambda x: jnp.sqrt(jnp.mean(jnp.square(x), axis=(1, 2, 3)))
  values = {
    'psnr': metrics.psnr(own, target),
    'l1': metrics.l1(own, target),
    'nrmse': norm(difference) / norm(target.astype(jnp.float32)),
    'confusion': segmenter.confusion(reader, net, own, batch['labels']),
    'confusion_photos': segmenter.confusion(reader, net, target, batch['labels']),
  }
  if min(own.shape[1:3]) >= _SMALLEST_SSIM:
    values['ssim'] = metrics.ssim(own, target)
  change = jnp.mean(jnp.abs(drawn['edited'].astype(jnp.float32) - own), axis=-1)
  within = lambda mask: jnp.sum(change * mask, axis=(1, 2)) / jnp.sum(mask, axis=(1, 2))
  of_others = {
    'psnr_other': metrics.psnr(drawn['other'], target),
    'inside': within(region),
    'outside': within(~region),
  }
  alone = jnp.sum(batch['mask']) < 2
  return values | {name: jnp.where(alone, jnp.nan, value) for name, value in of_others.items()}


MEASURES = ((measure, frozenset({'reconstruction', 'style'})),)
