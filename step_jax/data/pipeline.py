"""Batches of pictures: seeded, sharded by host, and a pure function of the step number.

Training batches are addressed, not consumed: batch `s` is the same pictures in the same views
whatever came before, on however many hosts. Resuming a run is asking for the batches from step `s`
on; nothing about the input is ever saved.
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
  """Which part of every global batch this host reads: part `index` of `count`."""

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

  Each epoch is a fresh permutation of the examples; a batch may span two epochs, and no example is
  left out or seen twice in one. Batch `s` of all shards together is the same for any number of
  shards.

  Args:
    examples: random access to whatever `load` takes.
    load: makes an example's arrays, given a generator that is seeded by the example's place in the
      run.
    batch_size: the *global* batch size, a multiple of `shard.count`.
    seed: everything random derives from it.
    start: number of the first step.
    shard: which part of the batches this host reads.

  Returns:
    An iterator of `{name: [batch_size / shard.count, …]}`.
  """
  local = batch_size // shard.count
  dataset = (
    grain.MapDataset.source(examples)
    .seed(seed)
    .shuffle()
    # Endless for every purpose; true endlessness overflows the slice below.
    .repeat(_EXAMPLES // len(examples))
    .random_map(load)
    .batch(local)
    # Batch k of the whole is split in `count` neighbouring pieces, one a host.
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
  """Examples `start` to `limit` of a split as `{role: uint8 [H, W, 3]}`, in their middle crop.

  Args:
    split: random access to `{'A', 'B'}`, and what else the set has.
    side_of: role -> side, see `data.roles`.
    crop: height and width; zeros keep pictures whole.
    limit: all by default.
    start: the first one.
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
  """Batches of whole images, each image once, those of one size together.

  A batch is made of `parts` smaller ones, one for each device. Which pictures meet in one of these
  does not depend on how many there are.

  Args:
    examples: `{'source': uint8 [H, W, 3], …}`, the first of them an image or a label map; others
      are of its height and width, or of none (codes).
    batch_size: of one part; where pictures run out a part is filled with copies of its own.
    parts: how many parts a batch has; missing ones are copies of the last.

  Yields:
    `{name: [parts * batch_size, …], 'index': int32 [parts * batch_size], 'mask': float32}`: the
    number of each example in the order given, and 1 for true examples, 0 for copies.
  """
  waiting: dict[tuple, list[Batch]] = {}
  whole: dict[tuple, list[Batch]] = {}
  for index, example in enumerate(examples):
    size = next(iter(example.values())).shape
    bucket = waiting.setdefault(size, [])
    bucket.append({**example, 'index': np.int32(index)})
    if len(bucket) == batch_size:
      whole.setdefault(size, []).append(_fill(waiting.pop(size), batch_size))
      if len(whole[size]) == parts:
        yield _join(whole.pop(size), parts)
  for size, bucket in waiting.items():
    whole.setdefault(size, []).append(_fill(bucket, batch_size))
  for batches in whole.values():
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
