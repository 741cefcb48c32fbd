"""How PyTorch programs are run to be measured: devices, variants, precision."""

import abc
from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import itertools

import flax.traverse_util
import jax
import numpy as np
import torch

from step_jax.bench import case
from step_jax.bench.settings import Settings
from step_jax.errors import RunError


@dataclasses.dataclass(frozen=True)
class Way:
  """One of the ways to run a PyTorch program, which differ in speed alone.

  Attributes:
    compiled: by `torch.compile`, or eager.
    channels_last: memory format of pictures and kernels.
    grouped: whether instance norms are computed as group norms; None where there are none.
    bfloat16: whether convolutions run under autocast.
  """

  compiled: bool
  channels_last: bool
  grouped: bool | None
  bfloat16: bool = False

  def __str__(self) -> str:
    words = [
      'compiled' if self.compiled else 'eager',
      'channels-last' if self.channels_last else 'contiguous',
      *{None: [], True: ['group norm'], False: ['instance norm']}[self.grouped],
      *(['autocast'] if self.bfloat16 else []),
    ]
    return ', '.join(words)

  @property
  def memory_format(self) -> torch.memory_format:
    """PyTorch's name of it."""
    return torch.channels_last if self.channels_last else torch.contiguous_format


def ways(bfloat16: bool, norms: bool = True) -> list[Way]:
  """All ways in a compute type. The compiler writes norms itself, so for it one of them will do.

  Args:
    bfloat16: the compute type, else float32.
    norms: whether the program has instance norms.
  """
  both = (False, True)
  grouped = both if norms else (None,)
  eager = [Way(False, *choice, bfloat16) for choice in itertools.product(both, grouped)]
  return eager + [Way(True, channels_last, grouped[-1], bfloat16) for channels_last in both]


def variants(
  make: Callable[[Way], 'Program'], settings: Settings, norms: bool = True
) -> Sequence[case.Variant]:
  """A program in all ways of the bench's compute type; see `ways`."""
  return [
    case.Variant(f'torch {way}', lambda way=way: make(way).work)
    for way in ways(settings.dtype == 'bfloat16', norms)
  ]


def load(module: torch.nn.Module, tree: Mapping) -> torch.nn.Module:
  """Copies the variables of a Flax network into the same network in PyTorch.

  Args:
    module: where to; its parameters and buffers have the names of Flax.
    tree: names and shapes as Flax has them; kernels `[k, k, in, out]` become `[out, in, k, k]`.
      Buffers may be missing.

  Returns:
    The module.

  Raises:
    ValueError: an array of one that the other does not have, or that has another shape.
  """
  arrays = flax.traverse_util.flatten_dict(tree, sep='.')
  buffers = {name: buffer for name, buffer in module.named_buffers() if name in arrays}
  held = {**dict(module.named_parameters()), **buffers}
  if arrays.keys() != held.keys():
    raise ValueError(f'parameters of one alone: {sorted(arrays.keys() ^ held.keys())}')
  with torch.no_grad():
    for name, tensor in held.items():
      array = np.asarray(arrays[name])
      if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
      if array.shape != tuple(tensor.shape):
        raise ValueError(f'{name}: {array.shape} is not {tuple(tensor.shape)}')
      tensor.copy_(torch.from_numpy(np.array(array)))
  return module


def to_float(pictures: torch.Tensor) -> torch.Tensor:
  """uint8 0..255 to float32 in [-1, 1], any shape."""
  return pictures.float() * (2.0 / 255.0) - 1.0


def device() -> torch.device:
  """The device of the kind that JAX uses.

  Raises:
    RunError: PyTorch cannot use it.
  """
  if jax.default_backend() == 'cpu':
    return torch.device('cpu')
  if not torch.cuda.is_available():
    raise RunError(
      f'PyTorch {torch.__version__} sees no GPU, and JAX runs on {jax.default_backend()}: install '
      'a PyTorch for this GPU, or compare on the CPU (JAX_PLATFORMS=cpu)'
    )
  return torch.device('cuda')


def set_precision(tf32: bool) -> None:
  """Whether float32 products and convolutions may be computed in TF32."""
  torch.backends.cuda.matmul.allow_tf32 = tf32
  torch.backends.cudnn.allow_tf32 = tf32


def wait() -> None:
  """Until the device has done everything asked of it."""
  if torch.cuda.is_available() and torch.cuda.is_initialized():
    torch.cuda.synchronize()


class Program(abc.ABC):
  """What all programs share: device, memory format, autocast, compiling."""

  def __init__(self, way: Way):
    self.way = way
    self.device = device()
    torch.backends.cudnn.benchmark = True

  def pictures(self, array: np.ndarray) -> torch.Tensor:
    """uint8 `[B, H, W, 3]` to `[B, 3, H, W]` on the device, in the memory format."""
    tensor = torch.from_numpy(np.array(array)).to(self.device).permute(0, 3, 1, 2)
    return tensor.contiguous(memory_format=self.way.memory_format)

  def autocast(self) -> contextlib.AbstractContextManager:
    """bfloat16 convolutions, where the way has them."""
    return torch.autocast(self.device.type, torch.bfloat16, enabled=self.way.bfloat16)

  def maybe_compile(self, function: Callable) -> Callable:
    """Compiled, where the way says so."""
    return torch.compile(function) if self.way.compiled else function

  @abc.abstractmethod
  def call(self) -> None:
    """Does the work once; may return before the device has done it."""

  def work(self, calls: int) -> None:
    """Does the work so many times, and waits."""
    for _ in range(calls):
      self.call()
    wait()
