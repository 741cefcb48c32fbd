"""Layouts of published weights, identified by tensor names and shapes.

A layout defines the names of tensors in a file, the order of their axes, and the origin of the
network, which determines the order of input channels and the normalisation of pixels.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import NamedTuple

from step_jax.errors import WeightsError
from step_jax.models.features import FEATURE_NETS, IMAGENET_MEAN, IMAGENET_STD, PIXEL_STD
from step_jax.weights import nets
from step_jax.weights.tensors import Tensor


class Pixels(NamedTuple):
  """Input normalisation of a network: `(pixel - mean) / std` of pixels in 0..255.

  Attributes:
    bgr: whether its kernels expect BGR.
    mean: mean, RGB.
    std: standard deviation, RGB.
    unit: factor on activations, so that those of all origins have similar magnitude (see
      `models.features.Input`); possible in networks of convolutions and ReLUs.
  """

  bgr: bool
  mean: tuple[float, float, float]
  std: tuple[float, float, float] = (1.0, 1.0, 1.0)
  unit: float = 1.0


PIXELS = {
  'caffe-vgg': Pixels(True, (123.68, 116.779, 103.939)),
  'caffe-ssd': Pixels(False, (123.0, 117.0, 104.0)),
  'caffe-squeezenet': Pixels(True, (123.0, 117.0, 104.0)),
  'torchvision': Pixels(False, IMAGENET_MEAN, IMAGENET_STD, PIXEL_STD),
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one kind of file stores one network.

  Attributes:
    title: common name of the layout.
    name: the network or heads.
    lineage: a key of `PIXELS`, `lpips-0.1` or `lpips-0.0` for heads, or `inception-2015-12-05`.
    paths: name in the file -> our name.
    axes: axes of a kernel: `HWIO`, `OIHW`, or `1C11` for the 1x1 convolutions of heads.
    ignored: pattern of names that belong to the network but are not needed (its classifier); the
      default matches nothing.
    named_only: whether the layout is used only if its name is given, because another one looks the
      same.
  """

  title: str
  name: str
  lineage: str
  paths: Mapping[str, str]
  axes: str
  ignored: str = '$.'
  named_only: bool = False

  def foreign(self, names: Mapping[str, Tensor]) -> list[str]:
    """Names that do not belong to this layout."""
    return [n for n in names if n not in self.paths and not re.fullmatch(self.ignored, n)]

  def shape(self, path: str) -> tuple[int, ...]:
    """Shape in the file of the tensor with our name `path`."""
    shape = nets.shapes(self.name)[path]
    if self.axes == '1C11':
      return (1, *shape, 1, 1)
    if self.axes == 'OIHW' and len(shape) == 4:
      return (shape[3], shape[2], shape[0], shape[1])
    return shape


def _torchvision(title: str, net: str, **options) -> Layout:
  """torchvision numbers layers, ReLUs and poolings; a Fire module includes its ReLUs."""
  inner = {'squeeze': 'squeeze', 'expand1': 'expand1x1', 'expand3': 'expand3x3'}
  index, prefixes = 0, {}
  for layer, _ in FEATURE_NETS[net].PLAN:
    prefixes[layer] = f'features.{index}'
    index += 2 if layer.startswith('conv') else 1
  paths = {}
  for path in _trained(net):
    layer, *parts, leaf = path.split('/')
    parts = [inner[part] for part in parts]
    leaf = {'kernel': 'weight', 'bias': 'bias'}[leaf]
    paths['.'.join([prefixes[layer], *parts, leaf])] = path
  return Layout(title, net, 'torchvision', paths, 'OIHW', r'classifier\..*', **options)


def _keras() -> Layout:
  """Keras has used three styles of names for VGG16: old .h5, newer .h5, and short."""
  paths = {}
  for path in _trained('vgg16'):
    block, number, leaf = re.fullmatch(r'conv(\d)_(\d)/(\w+)', path).groups()
    layer = f'block{block}_conv{number}'
    old = {'kernel': 'W', 'bias': 'b'}[leaf]
    for name in (f'{layer}_{old}_1:0', f'{layer}/{leaf}:0', leaf):
      paths[f'{layer}/{name}'] = path
  ignored = r'(fc1|fc2|predictions)/.*'
  return Layout('Keras VGG16', 'vgg16', 'caffe-vgg', paths, 'HWIO', ignored)


def _step_npy() -> Layout:
  paths = {re.sub('kernel$', '0', re.sub('bias$', '1', path)): path for path in _trained('vgg16')}
  return Layout("StEP's vgg16.npy", 'vgg16', 'caffe-vgg', paths, 'HWIO', r'fc[678]/.*')


def _squeezenet_npz() -> Layout:
  paths = {}
  for path in _trained('squeezenet1_1'):
    name = path.replace('squeeze', 'squeeze1x1')
    name = name.replace('expand1', 'expand1x1').replace('expand3', 'expand3x3')
    paths[re.sub('kernel$', 'w', re.sub('bias$', 'b', name))] = path
  return Layout('Caffe SqueezeNet 1.1', 'squeezenet1_1', 'caffe-squeezenet', paths, 'HWIO')


def _heads(name: str, pattern: str, axes: str) -> Layout:
  paths = {pattern.format(i): tap for i, tap in enumerate(nets.HEADS[name][1])}
  old = name.endswith('_v0.0')
  lineage = 'lpips-0.0' if old else 'lpips-0.1'
  return Layout(f'LPIPS heads {name}', name, lineage, paths, axes, named_only=old)


def _inception() -> Layout:
  """pytorch-fid uses our names; torchvision's own Inception has a second classifier."""
  leaves = {
    **{'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'},
    **{'mean': 'running_mean', 'var': 'running_var'},
  }
  paths = {}
  for path in nets.shapes(nets.INCEPTION):
    *parts, leaf = path.split('/')
    paths['.'.join([*parts, leaves[leaf]])] = path
  ignored = r'fc\.(weight|bias)|.*\.num_batches_tracked'
  return Layout(
    "pytorch-fid's Inception", nets.INCEPTION, 'inception-2015-12-05', paths, 'OIHW', ignored
  )


def _trained(net: str) -> list[str]:
  return [path for path in nets.shapes(net) if nets.layer_of(path) != 'input']


def _layouts() -> Iterator[Layout]:
  yield _step_npy()
  yield _keras()
  yield _squeezenet_npz()
  yield _torchvision('torchvision VGG16', 'vgg16')
  # Its first layers look like those of VGG16.
  yield _torchvision('torchvision VGG19', 'vgg19', named_only=True)
  yield _torchvision('torchvision AlexNet', 'alexnet')
  yield _torchvision('torchvision SqueezeNet 1.1', 'squeezenet1_1')
  yield _inception()
  for name in nets.HEADS:
    yield _heads(name, 'lin{}', 'HWIO')
    yield _heads(name, 'lin{}.model.1.weight', '1C11')


def recognise(tensors: Mapping[str, Tensor], name: str, where: str) -> Layout:
  """Finds the layout with the names and shapes of a file.

  Args:
    tensors: tensors of the file.
    name: expected network or heads; '': determined by the tensors, which assumes LPIPS 0.1 for
      heads, and VGG16 for first layers that both VGG networks share.
    where: the file, for messages.

  Raises:
    WeightsError: no layout fits, the file has another network, or several layouts fit (a few first
      layers).
  """
  all_layouts = list(_layouts())
  named = [layout for layout in all_layouts if not layout.foreign(tensors) and tensors]
  fitting = [layout for layout in named if not _misshapen(layout, tensors)]
  if name:
    chosen = [x for x in fitting if x.name == name]
  else:
    chosen = [x for x in fitting if not x.named_only] or fitting
  if len(chosen) == 1:
    return chosen[0]
  if chosen:
    both = ' or '.join(layout.name for layout in chosen)
    raise WeightsError(f'{where} holds too few layers to tell {both}: say which by its name')
  if fitting:
    raise WeightsError(f'{where} holds {fitting[0].name}, not {name}; give a file of {name}')
  if named:
    nearest = min(named, key=lambda layout: len(_misshapen(layout, tensors)))
    file_name = _misshapen(nearest, tensors)[0]
    raise WeightsError(
      f'{where} is no {nearest.name}: {file_name} is {list(tensors[file_name].shape)}, expected '
      f'{list(nearest.shape(nearest.paths[file_name]))}; convert a file of {", ".join(nets.NAMES)}'
    )
  nearest = min(all_layouts, key=lambda layout: len(layout.foreign(tensors)))
  foreign = nearest.foreign(tensors)
  looks = (
    f'looks like {nearest.title}, but' if len(foreign) < len(tensors) else 'is of no net here:'
  )
  raise WeightsError(
    f'{where} {looks} it holds {", ".join(map(repr, foreign[:3])) or "nothing"}; convert a file '
    f'of {", ".join(nets.NAMES)}'
  )


def _misshapen(layout: Layout, tensors: Mapping[str, Tensor]) -> list[str]:
  """Names in the file whose shape differs from that of the layout."""
  shared = [name for name in tensors if name in layout.paths]
  return [name for name in shared if tensors[name].shape != layout.shape(layout.paths[name])]
