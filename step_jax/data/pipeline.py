"""Batches of images: seeded, sharded by host, and a pure function of the step number.

Batch `s` has the same images in the same views, independent of earlier reads and of the number of
hosts. To resume a run, request the batches from step `s` on. The input pipeline saves no state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools

import grain
import numpy as np

from step_jax.data import augment

Batch = dict[str, np.ndarray]

_EXAMPLES = 2**40


@dataclasses.dataclass(frozen=True)
class Shard:
  """The part of every global batch that this host reads: part `index` of `count`."""

  index: int = 0
  count: int = 1


def train_batches(
  examples: Sequence,
  load: Callable[[object, np.random.Generator], Mapping[str, np.ndarray]],
  batch_size: int,
  seed: int,
  start: int = 0,
  shard: Shard = Shard(),
) -> Iterator[Batch]:
  """Endless batches of random views, from step `start` on.

  Each epoch is a new permutation of the examples. A batch may span two epochs; no example is
  skipped or repeated within an epoch. The shards of batch `s` together are the same for any number
  of shards.

  Args:
    examples: arguments of `load`, with random access.
    load: returns the arrays of an example; its generator is seeded by the position of the example
      in the run.
    batch_size: *global* batch size, a multiple of `shard.count`.
    seed: seed of all random numbers.
    start: number of the first step.
    shard: the part of the batches that this host reads.

  Returns:
    An iterator of `{name: [batch_size / shard.count, …]}`.
  """
  local = batch_size // shard.count
  dataset = (
    grain.MapDataset.source(examples)
    .seed(seed)
    .shuffle()
    # In effect infinite; true infinity would overflow in the slice below.
    .repeat(_EXAMPLES // len(examples))
    .random_map(load)
    .batch(local)
    # Each global batch is split into `count` consecutive pieces, one per host.
    .slice(slice(start * shard.count + shard.index, None, shard.count))
  )
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=8, prefetch_buffer_size=8)))


def eval_examples(
  split: Sequence,
  side_of: Mapping[str, str],
  crop: tuple[int, int],
  limit: int | None = None,
  start: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """Center crops of the examples `start` to `limit` of a split, `{role: uint8 [H, W, 3]}`.

  Args:
    split: examples `{'A', 'B', …}`, with random access.
    side_of: role -> name in an example, see `data.roles`.
    crop: height and width; zeros: no crop.
    limit: index after the last example; None: all.
    start: index of the first example.
  """
  for i in range(start, len(split) if limit is None else min(limit, len(split))):
    example = split[i]
    arrays = {role: example[side] for role, side in side_of.items()}
    if any(crop):
      arrays |= {
        role: augment.center_crop(image, crop)
        for role, image in arrays.items()
        if image.dtype == np.uint8
      }
    yield arrays


def eval_batches(examples: Iterable[Batch], batch_size: int, parts: int = 1) -> Iterator[Batch]:
  """Batches of complete images, each image once, grouped by size.

  A batch consists of `parts` smaller batches, one per device. Which images share a part does not
  depend on the number of parts.

  Args:
    examples: `{'source': uint8 [H, W, 3], …}`. The first array is an image or a label map; the
      others have its height and width, or neither (codes).
    batch_size: size of one part; incomplete parts are filled with copies of their own examples.
    parts: number of parts of a batch; missing parts are copies of the last.

  Yields:
    `{name: [parts * batch_size, …], 'index': int32 [parts * batch_size], 'mask': float32}`: the
    index of each example in the given order, and a mask that is 0 for copies, otherwise 1.
  """
  waiting: dict[tuple, list[Batch]] = {}
  complete: dict[tuple, list[Batch]] = {}
  for index, example in enumerate(examples):
    size = next(iter(example.values())).shape
    bucket = waiting.setdefault(size, [])
    bucket.append({**example, 'index': np.int32(index)})
    if len(bucket) == batch_size:
      complete.setdefault(size, []).append(_fill(waiting.pop(size), batch_size))
      if len(complete[size]) == parts:
        yield _join(complete.pop(size), parts)
  for size, bucket in waiting.items():
    complete.setdefault(size, []).append(_fill(bucket, batch_size))
  for batches in complete.values():
    for start in range(0, len(batches), parts):
      yield _join(batches[start : start + parts], parts)


def _fill(examples: list[Batch], batch_size: int) -> Batch:
  mask = np.arange(batch_size) < len(examples)
  filled = list(itertools.islice(itertools.cycle(examples), batch_size))
  batch = {name: np.stack([example[name] for example in filled]) for name in examples[0]}
  return {**batch, 'mask': mask.astype(np.float32)}


def _join(batches: list[Batch], parts: int) -> Batch:
  copies = [{**batches[-1], 'mask': np.zeros_like(batches[-1]['mask'])}] * (parts - len(batches))
  batches = batches + copies
  return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
