"""A trained run, its data and its weights, opened for evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import itertools
import logging
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from step_jax import data, files, methods, weights
from step_jax.data import contents, pipeline, published, swatches
from step_jax.errors import DataError, shown
from step_jax.evaluate import lpips as lpips_lib
from step_jax.evaluate import scores
from step_jax.evaluate.parallel import over_devices
from step_jax.evaluate.protocols import PROTOCOLS, Protocol
from step_jax.fields import DATASETS
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

# Batch size of a device. Part of every protocol: it determines which image is the "next" of
# another, and the rounding of sums.
BATCH = 8
# Reason for skipping scores of styles.
NO_STYLES = 'the run has no styles'


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
  """A run, opened for evaluation.

  This class uses only the interface `methods.Run`, and translates on one device. A method may have
  its own subclass, which uses all devices.

  Attributes:
    folder: folder of the stage.
    run: the run.
    pair_set: the data set.
    split: name of the split to score.
    features: feature network of the run; None if its configuration has none.
    learned: all LPIPS variants with weights.
    mesh: all devices.
    params: parameters of the run, on every device.
    seed: seed of all random numbers.
  """

  folder: files.Path
  run: methods.Run
  pair_set: data.PairSet
  split: str
  features: weights.Features | None
  learned: Sequence[lpips_lib.Lpips]
  mesh: jax.sharding.Mesh
  params: Mapping
  seed: int

  @property
  def config(self) -> ml_collections.ConfigDict:
    """Configuration of the stage."""
    return self.run.config

  @property
  def count(self) -> int:
    """Number of images in the split."""
    return self.pair_set.splits[self.split]

  @property
  def net(self) -> str:
    """Name of the feature network in ids; `random-…` if its weights are random."""
    return feature_name(self.config.features.net, self.features)

  @functools.cached_property
  def tap_weights(self) -> dict[str, float]:
    """Taps of the perceptual distance and their weights."""
    return weights.tap_weights(self.config.features)

  def pictures(
    self, split: str, limit: int | None = None, roles: Sequence[str] = ()
  ) -> Iterator[dict[str, np.ndarray]]:
    """Images of a split in order, `{role: uint8 [H, W, 3]}`, cropped for evaluation.

    Args:
      split: name of the split.
      limit: maximum number of examples; None: all.
      roles: roles from `methods.roles`; empty: all, with label maps `[H, W]` and arrays if the run
        reads them.
    """
    side_of = methods.roles(self.config, self.pair_set)
    return pipeline.eval_examples(
      self.pair_set.split(split),
      {role: side_of[role] for role in roles or side_of},
      self.config.data.eval_crop,
      limit,
    )

  # Caches live as long as the session, which is as long as the evaluation.
  @functools.cache  # noqa: B019
  def digest(self, split: str, limit: int | None = None) -> str:
    """Identifies images by their number and SHA-256 of their sizes and pixels."""
    sha256, count = hashlib.sha256(), 0
    for example in self.pictures(split, limit):
      count += 1
      for picture in example.values():
        sha256.update(repr(picture.shape).encode() + picture.tobytes())
    return f'{count} of {split}, pixels {sha256.hexdigest()[:16]}'

  def protocol(self, name: str, blanks: Mapping[str, str] | None = None, **facts: str) -> Protocol:
    """The protocol with that name on this data; see `Protocol.on` for `blanks` and `facts`."""
    facts = {'data': self.digest(self.split), **facts}
    return PROTOCOLS[name].on(facts, **(blanks or {}))

  def stream(
    self, function: Callable, constants: tuple, examples: Iterable, batch_size: int = BATCH
  ) -> Iterator[dict[str, np.ndarray]]:
    """Applies a function to batches on all devices, and yields its results per example, in order.

    Args:
      function: `(*constants, batch) -> {name: [B, …]}`; see `parallel.over_devices`.
      constants: trees that are on every device.
      examples: examples for `data.pipeline.eval_batches`.
      batch_size: batch size of one device.
    """
    run = over_devices(self.mesh, function)
    batches = pipeline.eval_batches(examples, batch_size, self.mesh.size)
    return scores.in_order(functools.partial(run, *constants), batches)

  def put(self, tree):
    """Copies arrays to every device."""
    return mesh_lib.put_replicated(self.mesh, tree)

  @property
  def method(self) -> methods.Method:
    """Method of the run."""
    return methods.METHODS[self.run.method]

  @property
  def styled(self) -> bool:
    """Whether the run has styles."""
    return True

  @property
  def sampling(self) -> str:
    """How styles are sampled, for definitions: a rule, so that runs can be compared."""
    return f'as runs of {self.run.method} draw codes by default'

  @property
  def drawn_by(self) -> dict[str, str]:
    """The sampler that the rule selected in this run, and what it was fitted to."""
    return {}

  @functools.cache  # noqa: B019
  def codes(self, split: str) -> Any:
    """Codes `[N, …]` of the targets of a split: an array, or a tree of arrays."""
    roles = self.method.code_roles
    parts = [
      methods.encode(self.run, {role: np.stack([e[role] for e in group]) for role in roles})
      for group in _alike(self.pictures(split, roles=roles))
    ]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

  def draw(self, count: int) -> Any:
    """Samples codes `[count, …]`, structured like `codes`; the same for the same seed."""
    return self.run.draw(count, self.seed)

  def sources(self, limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The sources of the split in order, as input of `translations`."""
    return self.pictures(self.split, limit, roles=(self.method.source_role,))

  def translations(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[np.ndarray]:
    """Translates sources, each with a `code` or None; yields uint8 `[H, W, 3]` in order."""
    for group in _alike(examples):
      sources = np.stack([example[self.method.source_role] for example in group])
      codes = jax.tree.map(lambda *arrays: np.stack(arrays), *(e['code'] for e in group))
      yield from self.run.translate(sources, codes)

  def sampled(self, count: int) -> Iterator[np.ndarray]:
    """Translates the first `count` sources of the split, each into one sampled style."""
    codes = self.draw(count)
    return self.translations(
      {**example, 'code': scores.at(codes, i)} for i, example in enumerate(self.sources(count))
    )


def _alike(examples: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
  """Groups of at most `BATCH` consecutive examples of one size."""
  shapes = lambda example: jax.tree.map(np.shape, dict(example))
  for _, group in itertools.groupby(examples, shapes):
    yield from scores.chunks(group, BATCH)


def feature_name(net: str, features: weights.Features) -> str:
  """Name of a feature network in ids: `NET`, or `random-NET` if its weights are random."""
  return net if features.sha256 else f'random-{net}'


def feature_facts(features: weights.Features) -> dict[str, str]:
  """The weights of a feature network, for definitions."""
  return {'weights': features.sha256 or 'random, He-initialised, seed 0'}


def _data_of_export(folder: files.Path, name: str) -> str:
  """Path of the data set that an export names, in its usual place.

  Raises:
    DataError: it does not exist there.
  """
  place = DATASETS.get(name, {}).get('path', name)
  # The name comes from the export, which is untrusted: it must not lead to another folder.
  plain = name not in ('', '..') and pathlib.PurePath(name).name == name
  if place not in swatches.SETS and not (plain and files.path(place).is_dir()):
    get = f', or run `step-jax data get {name}`' if name in published.PUBLISHED else ''
    raise DataError(
      f'{folder}: was trained on {shown(name)}, and there is no folder {shown(place)}: '
      f'give the images with --data{get}'
    )
  return place


def open_run(
  workdir: str | os.PathLike,
  split: str = 'val',
  which: str = 'latest',
  path: str = '',
  seed: int = 0,
) -> Session:
  """Opens a run for evaluation.

  Args:
    workdir: work directory of the run, the folder of a stage, or an export.
    split: split of the data set.
    which: `latest` or `best` checkpoint.
    path: data set to use instead of that of the run.
    seed: seed of all random numbers.

  Raises:
    UserError: the run, its data or its weights are missing.
  """
  run = methods.load(workdir, which)
  config = run.config
  if not path and methods.is_export(run.folder):
    path = _data_of_export(run.folder, config.data.path)
  pairs = contents.open_held_out(run.folder, config.data, path, split)
  net = config.get('features')
  features = net and weights.load_features(net.net, net.taps, net.weights)
  mesh = mesh_lib.make_mesh()
  return (methods.METHODS[run.method].hook('session') or Session)(
    folder=run.folder,
    run=run,
    pair_set=pairs,
    split=split,
    features=features,
    learned=lpips_lib.available(),
    mesh=mesh,
    params=mesh_lib.put_replicated(mesh, jax.device_get(run.params)),
    seed=seed,
  )
