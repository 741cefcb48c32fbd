"""A trained run: encode, edit, translate, sample and interpolate numpy arrays."""

from collections.abc import Iterable, Sequence
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from step_jax import files
from step_jax.data.labels import Labels
from step_jax.errors import DataError
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet import extraction, inputs, networks, stage, tiles, training
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.drawing import Drawer
from step_jax.methods.superstylenet.regions import Region
from step_jax.methods.superstylenet.spse import CODE_SIZE
from step_jax.train import stage as stage_lib

log = logging.getLogger(__name__)

# Number of styles of one layout that are generated at a time.
_BATCH = 8


class RegionRun:
  """A trained generator with codes of training images.

  Sources are label maps, int `[H, W]` or `[N, H, W]`; results are uint8 images with the same
  leading axes. Codes are `RegionCodes` of one image, `[L, 512]`, or with leading axes.

  Attributes:
    config: configuration of the stage.
    step: step of the checkpoint.
    params: parameters and statistics of the generator, as variables of its module.
    bank: codes `[N, L, 512]` of training images, from which `draw` samples.
    mean: mean code of each label over all training images, `[L, 512]`.
    labels: how to read label maps.
    code_shape, code_digest: see `methods.method.Encoder`.
    note: empty.
  """

  method = 'superstylenet'
  note = ''

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    step: int,
    params: dict[str, Any],
    bank: RegionCodes,
    mean: RegionCodes,
  ):
    """See the attributes."""
    self.config = config
    self.step = step
    self.params = params
    self.bank = bank
    self.mean = mean
    self.generator = networks.generator(config)
    self.labels = Labels.of(config.data)
    self.code_shape = (self.num_labels, CODE_SIZE)
    self.code_digest = inputs.code_digest(self.num_labels, config.codes.size)
    self._drawer = Drawer(self.generator, params)

  @property
  def num_labels(self) -> int:
    """Number of labels."""
    return self.generator.num_labels

  @functools.cached_property
  def extractor(self) -> extraction.Extractor:
    """The extractor for `encode`."""
    return extraction.Extractor(self.num_labels, self.config.codes.size)

  def encode(self, images: np.ndarray, labels: np.ndarray | None = None) -> RegionCodes:
    """Codes of images: `[H, W, 3] -> [L, 512]`, or `[N, H, W, 3] -> [N, L, 512]`.

    Args:
      images: uint8.
      labels: their label maps, int `[H, W]` or `[N, H, W]`.

    Raises:
      DataError: there are no label maps, or they do not fit.
    """
    if labels is None:
      raise DataError('codes of regions need the label map of the image: give --style-labels')
    self._check(labels)
    return self.extractor.all(images, labels)

  def pack(self, code: RegionCodes) -> np.ndarray:
    """Converts a code to an array for a file; see `codes.pack`."""
    return codes_lib.pack(code)

  def unpack(self, array: np.ndarray) -> RegionCodes:
    """Converts an array from a file to a code; see `codes.unpack`."""
    return codes_lib.unpack(array, *self.code_shape)

  def translate(
    self,
    sources: np.ndarray,
    code: RegionCodes | None = None,
    fallback: RegionCodes | None = None,
    region: Region | Sequence[Region] = (),
    noise_seed: int | None = None,
    tile: int = 0,
  ) -> np.ndarray:
    """Generates images from label maps and codes; logs labels without their own code.

    Args:
      sources: int `[H, W]` or `[N, H, W]`.
      code: `[L, 512]` for all, or `[N, L, 512]` for each; None: the mean codes.
      fallback: codes `[L, 512]` for labels without a code; None: the mean codes.
      region: regions with codes from files, see `regions.parse`.
      noise_seed: seed of the noise of the generator; None: no noise.
      tile: side of the tiles in pixels, for label maps that do not fit into memory; the result is
        the same within rounding, see `tiles.draw`. 0 generates whole images.

    Returns:
      uint8 `[H, W, 3]` or `[N, H, W, 3]`.
    """
    self._check(sources)
    code = self.mean if code is None else code
    for edit in [region] if isinstance(region, Region) else region:
      code = self._edited(code, edit)
    if sources.ndim == 2:
      return self.draw_styles(sources, _add_axis(code), fallback, noise_seed, tile)[0]
    each = [code if code.valid.ndim == 1 else _row(code, i) for i in range(len(sources))]
    return np.stack(
      [
        self.translate(labels, own, fallback, (), noise_seed, tile)
        for labels, own in zip(sources, each, strict=True)
      ]
    )

  def draw_styles(
    self,
    labels: np.ndarray,
    codes: RegionCodes,
    fallback: RegionCodes | None = None,
    noise_seed: int | None = None,
    tile: int = 0,
  ) -> np.ndarray:
    """Generates one layout in many styles; what depends only on the layout is computed once.

    Args:
      labels: int `[H, W]`.
      codes: `[N, L, 512]`.
      fallback, noise_seed, tile: see `translate`.

    Returns:
      uint8 `[N, H, W, 3]`.
    """
    complete, notes = self.complete(labels, codes, fallback)
    for note in notes:
      log.warning('%s', note)
    if tile:
      draw = functools.partial(tiles.draw, self.generator, self.params, labels)
      return np.stack([draw(code, tile, noise_seed) for code in complete.codes])
    size = min(_BATCH, len(codes.codes))
    drawn = []
    for start in range(0, len(codes.codes), size):
      part = complete.codes[start : start + size]
      filled = np.resize(part, (size, *part.shape[1:]))
      images = self._drawer.draw(labels, RegionCodes(filled, filled.any(-1)), noise_seed)
      drawn.append(images[: len(part)])
    return np.concatenate(drawn)

  def complete(
    self, labels: np.ndarray, codes: RegionCodes, fallback: RegionCodes | None = None
  ) -> tuple[RegionCodes, list[str]]:
    """Fills missing codes of the labels of a map, and returns messages about them.

    Args:
      labels: label map, int `[H, W]`.
      codes: `[..., L, 512]`.
      fallback: codes for labels without one; None, and for labels without one in it: mean codes.
    """
    notes, source = [], 'the code of the other image'
    for other in ([] if fallback is None else [fallback]) + [self.mean]:
      source = 'the mean code of the label' if other is self.mean else source
      completed = codes.complete(other)
      borrowed = completed.borrowed.reshape(-1, self.num_labels).any(axis=0)
      notes += completed._replace(borrowed=borrowed).notes(labels, source)[: int(borrowed.any())]
      codes = completed.codes
    missing = completed.missing(labels)
    if missing:
      listed = ', '.join(map(str, missing))
      notes.append(f'labels {listed} have no code at all: drawn with the code of black')
    return codes, notes

  def draw(self, count: int, seed: int = 0) -> RegionCodes:
    """Samples codes `[count, L, 512]`: each label gets the code of a random training image."""
    return self.bank.sample(count, seed)

  def sample(self, sources: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Translates sources into `count` sampled styles, the same for all sources: `[count, …]`."""
    return self._in_styles(sources, self.draw(count, seed))

  def interpolate(
    self,
    sources: np.ndarray,
    a: RegionCodes,
    b: RegionCodes,
    steps: int = 8,
    regions: Iterable[int] | None = None,
  ) -> np.ndarray:
    """Translates sources into styles on the line from codes `a` to `b`, inclusive: `[steps, …]`.

    Args:
      sources: int `[H, W]` or `[N, H, W]`.
      a, b: codes `[L, 512]` of two images.
      steps: number of styles.
      regions: labels whose codes change; the others keep the code of `a`. None: all.
    """
    regions = None if regions is None else list(regions)
    line = [a.interpolate(b, float(share), regions) for share in np.linspace(0, 1, steps)]
    return self._in_styles(sources, RegionCodes(*map(np.stack, zip(*line, strict=True))))

  def _edited(self, code: RegionCodes, edit: Region) -> RegionCodes:
    """Codes, `[L, 512]` or `[N, L, 512]`, with that of one region from a file."""
    other = self._read_region(edit)
    if code.valid.ndim > 1:
      each = [self._edited(_row(code, i), edit) for i in range(len(code.valid))]
      return RegionCodes(*map(np.stack, zip(*each, strict=True)))
    if edit.share == 1:
      return code.with_region(edit.label, other)
    return code.interpolate(other, edit.share, [edit.label])

  # Cached, because a command applies one edit to many sources.
  @functools.lru_cache(maxsize=8)  # noqa: B019
  def _read_region(self, edit: Region) -> RegionCodes:
    return inputs.read_region(self, edit)

  def _in_styles(self, sources: np.ndarray, codes: RegionCodes) -> np.ndarray:
    self._check(sources)
    if sources.ndim == 2:
      return self.draw_styles(sources, codes)
    return np.stack([self.draw_styles(labels, codes) for labels in sources], axis=1)

  def _check(self, labels: np.ndarray) -> None:
    """Checks that label maps fit this run.

    Raises:
      ValueError: these are not label maps.
      DataError: there is an unknown label.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (2, 3) or labels.dtype.kind not in 'iu':
      raise ValueError(
        f'label maps must be integers [H, W] or [N, H, W], got {labels.dtype} {list(labels.shape)}'
      )
    highest = int(labels.max(initial=0))
    if highest >= self.num_labels:
      raise DataError(
        f'the label map has the class {highest}, but this run has the classes 0 to '
        f'{self.num_labels - 1}: give a map of these classes'
      )


def _add_axis(codes: RegionCodes) -> RegionCodes:
  return RegionCodes(codes.codes[None], codes.valid[None])


def _row(codes: RegionCodes, index: int) -> RegionCodes:
  return RegionCodes(codes.codes[index], codes.valid[index])


def load(folder: files.Path, which: str = 'latest') -> RegionRun:
  """Opens the folder of a trained stage.

  Args:
    folder: folder from `methods.find`.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: the stage has another method, or its checkpoint cannot be read.
  """
  config = stage_lib.trained_config(folder, ('superstylenet',))
  module = networks.generator(config)
  params, stats = _split(shapes(config))
  averaged = bool(config.ema_decay)
  part, name = ('ema', training.AVERAGED) if averaged else ('params', 'generator')
  like = {part: {'generator': params}, 'stats': {name: stats}}
  step, restored, _ = stage_lib.load_run(folder, like, which)
  variables = {'params': restored[part]['generator'], **restored['stats'][name]}
  bank = extraction.read_bank(folder / stage.BANK_FILE, module.num_labels)
  return RegionRun(config, step, variables, *bank)


def shapes(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Shapes of `RegionRun.params`."""
  module = networks.generator(config)
  labels = jnp.zeros((1, *config.data.crop), jnp.int32)
  codes = jnp.zeros((1, module.num_labels, CODE_SIZE))
  return jax.eval_shape(module.init, jax.random.key(0), labels, codes)


def _split(variables):
  stats = {name: tree for name, tree in variables.items() if name != 'params'}
  return variables['params'], stats
