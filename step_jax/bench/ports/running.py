"""Devices, variants and precision of the PyTorch programs in benchmarks."""

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
  """One way to run a PyTorch program; ways differ only in speed.

  Attributes:
    compiled: with `torch.compile` instead of eager.
    channels_last: memory format of images and kernels.
    grouped: whether instance norms are computed as group norms; None if there are none.
    bfloat16: whether convolutions run under autocast.
  """

  compiled: bool
  channels_last: bool
  grouped: bool | None
  bfloat16: bool = False

  def __str__(self) -> str:
    parts = [
      'compiled' if self.compiled else 'eager',
      'channels-last' if self.channels_last else 'contiguous',
      *{None: [], True: ['group norm'], False: ['instance norm']}[self.grouped],
      *(['autocast'] if self.bfloat16 else []),
    ]
    return ', '.join(parts)

  @property
  def memory_format(self) -> torch.memory_format:
    """The memory format as PyTorch's constant."""
    return torch.channels_last if self.channels_last else torch.contiguous_format


def ways(bfloat16: bool, norms: bool = True) -> list[Way]:
  """All ways for a compute type; compiled programs use one kind of norm, which makes no difference.

  Args:
    bfloat16: bfloat16 instead of float32.
    norms: whether the program has instance norms.
  """
  both = (False, True)
  grouped = both if norms else (None,)
  eager = [Way(False, *choice, bfloat16) for choice in itertools.product(both, grouped)]
  return eager + [Way(True, channels_last, grouped[-1], bfloat16) for channels_last in both]


def variants(
  make: Callable[[Way], 'Program'], settings: Settings, norms: bool = True
) -> Sequence[case.Variant]:
  """Variants of a program, one per way of the benchmark's compute type; see `ways`."""
  return [
    case.Variant(f'torch {way}', lambda way=way: make(way).work)
    for way in ways(settings.dtype == 'bfloat16', norms)
  ]


def load(module: torch.nn.Module, tree: Mapping) -> torch.nn.Module:
  """Copies the variables of a Flax network to the same network in PyTorch.

  Args:
    module: target; its parameters and buffers have the names of Flax.
    tree: variables with Flax names and shapes; kernels `[k, k, in, out]` become `[out, in, k, k]`.
      Buffers may be missing.

  Returns:
    The module.

  Raises:
    ValueError: names or shapes differ.
  """
  arrays = flax.traverse_util.flatten_dict(tree, sep='.')
  buffers = {name: buffer for name, buffer in module.named_buffers() if name in arrays}
  variables = {**dict(module.named_parameters()), **buffers}
  if arrays.keys() != variables.keys():
    raise ValueError(f'parameters of only one network: {sorted(arrays.keys() ^ variables.keys())}')
  with torch.no_grad():
    for name, tensor in variables.items():
      array = np.asarray(arrays[name])
      if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
      if array.shape != tuple(tensor.shape):
        raise ValueError(f'{name}: {array.shape} is not {tuple(tensor.shape)}')
      tensor.copy_(torch.from_numpy(np.array(array)))
  return module


def to_float(pictures: torch.Tensor) -> torch.Tensor:
  """Images uint8 0..255 to float32 in [-1, 1], any shape."""
  return pictures.float() * (2.0 / 255.0) - 1.0


def device() -> torch.device:
  """The PyTorch device of the same kind as that of JAX.

  Raises:
    RunError: PyTorch cannot use this kind of device.
  """
  if jax.default_backend() == 'cpu':
    return torch.device('cpu')
  if not torch.cuda.is_available():
    raise RunError(
      f'PyTorch {torch.__version__} finds no GPU, but JAX runs on {jax.default_backend()}: install '
      'a PyTorch for this GPU, or compare on the CPU (JAX_PLATFORMS=cpu)'
    )
  return torch.device('cuda')


def set_precision(tf32: bool) -> None:
  """Sets whether float32 products and convolutions may use TF32."""
  torch.backends.cuda.matmul.allow_tf32 = tf32
  torch.backends.cudnn.allow_tf32 = tf32


def wait() -> None:
  """Waits until the device has finished all work."""
  if torch.cuda.is_available() and torch.cuda.is_initialized():
    torch.cuda.synchronize()


class Program(abc.ABC):
  """Base of all programs: device, memory format, autocast, compilation."""

  def __init__(self, way: Way):
    self.way = way
    self.device = device()
    torch.backends.cudnn.benchmark = True

  def pictures(self, array: np.ndarray) -> torch.Tensor:
    """uint8 `[B, H, W, 3]` to `[B, 3, H, W]` on the device, in the memory format."""
    tensor = torch.from_numpy(np.array(array)).to(self.device).permute(0, 3, 1, 2)
    return tensor.contiguous(memory_format=self.way.memory_format)

  def autocast(self) -> contextlib.AbstractContextManager:
    """Context with bfloat16 convolutions if the way uses them."""
    return torch.autocast(self.device.type, torch.bfloat16, enabled=self.way.bfloat16)

  def maybe_compile(self, function: Callable) -> Callable:
    """Compiles a function if the way is compiled."""
    return torch.compile(function) if self.way.compiled else function

  @abc.abstractmethod
  def call(self) -> None:
    """Runs the program once; may return before the device has finished."""

  def work(self, calls: int) -> None:
    """Runs the program the given number of times, and waits for the device."""
    for _ in range(calls):
      self.call()
    wait()
