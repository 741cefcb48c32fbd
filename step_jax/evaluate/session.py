"""A trained run, its data and its weights, opened for evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import logging
import os

import jax
import ml_collections
import numpy as np

from step_jax import data, files, infer, models, weights
from step_jax.data import contents, pipeline
from step_jax.evaluate import lpips as lpips_lib
from step_jax.evaluate import scores
from step_jax.evaluate.parallel import over_devices
from step_jax.evaluate.protocols import PROTOCOLS, Protocol
from step_jax.infer import functions, samplers
from step_jax.methods import networks
from step_jax.train import mesh as mesh_lib

log = logging.getLogger(__name__)

# Pictures that a device scores at a time. Part of every protocol: which pictures are each other's
# "next", and how sums round, depends on it.
BATCH = 8
# What is said of scores of styles where there are none.
NO_STYLES = 'the run has no styles: model.z_dim is 0'


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
  """What evaluation works on.

  Attributes:
    folder: of the stage.
    translator: the run.
    found: the data set.
    split: name of the split that is scored.
    features: the run's own feature net.
    learned: every LPIPS that has weights.
    mesh: all devices.
    params: network -> averaged parameters, on every device.
    seed: of everything drawn.
  """

  folder: files.Path
  translator: infer.Translator
  found: data.PairSet
  split: str
  features: weights.Features
  learned: Sequence[lpips_lib.Lpips]
  mesh: jax.sharding.Mesh
  params: Mapping
  seed: int

  @property
  def config(self) -> ml_collections.ConfigDict:
    """Of the stage."""
    return self.translator.config

  @property
  def encoder(self) -> models.StyleEncoder:
    """The style encoder."""
    return networks.style_encoder(self.config)

  @property
  def generator(self) -> models.Generator:
    """The generator."""
    return networks.generator(self.config)

  @property
  def styled(self) -> bool:
    """Whether there are styles at all; codes of length zero, as those of pix2pix, say nothing."""
    return self.config.model.z_dim > 0

  @property
  def count(self) -> int:
    """How many pictures the split has."""
    return self.found.splits[self.split]

  @property
  def net(self) -> str:
    """What the run's feature net is called in ids: `random-…` where nobody trained it."""
    return feature_name(self.config.features.net, self.features)

  @functools.cached_property
  def tap_weights(self) -> dict[str, float]:
    """Taps of the perceptual distance and how much each counts."""
    settings = self.config.features
    return dict(zip(settings.taps, settings.tap_weights, strict=True))

  def pictures(
    self, split: str, limit: int | None = None, roles: Sequence[str] = ('source', 'target')
  ) -> Iterator[dict[str, np.ndarray]]:
    """Pictures of a split in order, `{role: uint8 [H, W, 3]}`, cropped as for evaluation."""
    source, target = data.sides(self.found, self.config.data.direction)
    side_of = {'source': source, 'target': target}
    return pipeline.eval_examples(
      self.found.split(split),
      {role: side_of[role] for role in roles},
      self.config.data.eval_crop,
      limit,
    )

  # Sessions are few, and end with the evaluation: what they remember may stay until then.
  @functools.cache  # noqa: B019
  def digest(self, split: str, limit: int | None = None) -> str:
    """Says which pictures these are: their number, and SHA-256 of their sizes and pixels."""
    sha256, count = hashlib.sha256(), 0
    for example in self.pictures(split, limit):
      count += 1
      for picture in example.values():
        sha256.update(repr(picture.shape).encode() + picture.tobytes())
    return f'{count} of {split}, pixels {sha256.hexdigest()[:16]}'

  def protocol(self, name: str, blanks: Mapping[str, str] | None = None, **facts: str) -> Protocol:
    """The protocol of that name on this data; `blanks` of its id and more `facts` as in `on`."""
    facts = {'data': self.digest(self.split), **facts}
    return PROTOCOLS[name].on(facts, **(blanks or {}))

  def stream(
    self, function: Callable, constants: tuple, examples: Iterable, batch_size: int = BATCH
  ) -> Iterator[dict[str, np.ndarray]]:
    """What a function of batches gives for each example, in order, computed on all devices.

    Args:
      function: `(*constants, batch) -> {name: [B, …]}`; see `parallel.over_devices`.
      constants: trees that are on every device.
      examples: as `data.pipeline.eval_batches` takes them.
      batch_size: of one device.
    """
    run = over_devices(self.mesh, function)
    batches = pipeline.eval_batches(examples, batch_size, self.mesh.size)
    return scores.in_order(functools.partial(run, *constants), batches)

  def put(self, tree):
    """Copies arrays to every device."""
    return mesh_lib.put_replicated(self.mesh, tree)

  @functools.cache  # noqa: B019
  def codes(self, split: str) -> np.ndarray:
    """Style codes `[N, Z]` of the targets of a split."""
    encoder = self.encoder
    encode = lambda params, batch: {'z': functions.encode(encoder, params, batch['target'])}
    return scores.stack(
      self.stream(encode, (self.params,), self.pictures(split, roles=('target',)))
    )['z']

  def translations(self, examples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Outputs uint8 `[H, W, 3]` of `{'source': uint8 [H, W, 3], 'z': [Z]}`, in order."""
    generator = self.generator

    def generate(params, batch):
      return {'output': functions.generate(generator, params, batch['source'], batch['z'])}

    return (row['output'] for row in self.stream(generate, (self.params,), examples))

  @functools.cached_property
  def sampler(self) -> samplers.Sampler:
    """What draws styles: the run's own mapper or Gaussian, whichever it uses by default."""
    name = self.translator.sampler_name
    if name in self.translator.samplers:
      return self.translator.sampler()
    if self.translator.note:
      log.warning('%s', self.translator.note)
    return samplers.gaussian(self.codes('train'))

  @property
  def sampling(self) -> str:
    """Where drawn styles come from, for definitions: a rule, so that runs can be compared."""
    if not self.styled:
      return 'none, for the run has no styles'
    if not self.translator.samplers:
      return 'normal distribution with mean and covariance of the codes of the train targets'
    if self.translator.fitted_to is None:
      return 'mapper'
    return (
      'mapper fitted to this encoder, or the normal distribution with mean and covariance of its '
      'training codes where that has the lower energy distance to held-out codes'
    )

  @property
  def drawn_by(self) -> dict[str, str]:
    """Which sampler that was in this run, and the encoder that the mapper records."""
    if not self.styled:
      return {}
    encoder = self.translator.fitted_to
    return {'sampler': self.sampler.name, **(dataclasses.asdict(encoder) if encoder else {})}

  def draw(self, count: int) -> np.ndarray:
    """New style codes `[count, Z]`, by the `sampler`; the same for the same seed."""
    if not self.styled:
      return np.zeros((count, 0), np.float32)
    return self.sampler.draw(count, self.seed)

  def sampled(self, count: int) -> Iterator[np.ndarray]:
    """Outputs for the first `count` sources of the split, each in one drawn style."""
    sources = self.pictures(self.split, count, roles=('source',))
    styles = self.draw(count)
    return self.translations(
      {**example, 'z': z} for example, z in zip(sources, styles, strict=True)
    )


def feature_name(net: str, features: weights.Features) -> str:
  """What a feature net is called in ids: `NET`, or `random-NET` where nobody trained it."""
  return net if features.sha256 else f'random-{net}'


def feature_facts(features: weights.Features) -> dict[str, str]:
  """Which weights a feature net has, for definitions."""
  return {'weights': features.sha256 or 'random, He-initialised, seed 0'}


def open_run(
  workdir: str | os.PathLike,
  split: str = 'val',
  which: str = 'latest',
  path: str = '',
  seed: int = 0,
) -> Session:
  """Opens a run for evaluation.

  Args:
    workdir: of the run, or the folder of a stage.
    split: of its data set.
    which: `latest` or `best` checkpoint.
    path: data set, where it is not the one that the run was trained on.
    seed: of everything drawn.

  Raises:
    UserError: the run, its data or its weights are not there.
  """
  folder = infer.find_stage(workdir)
  translator = infer.load(folder, which)
  config = translator.config
  found = data.open_config(config.data, path)
  found.split(split)
  if warning := contents.evaluation_warning(folder, found, split):
    log.warning('%s', warning)
  features = weights.load_features(
    config.features.net, config.features.taps, config.features.weights
  )
  mesh = mesh_lib.make_mesh()
  return Session(
    folder=folder,
    translator=translator,
    found=found,
    split=split,
    features=features,
    learned=lpips_lib.available(),
    mesh=mesh,
    params=mesh_lib.put_replicated(mesh, jax.device_get(translator.params)),
    seed=seed,
  )
