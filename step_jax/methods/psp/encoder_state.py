"""Converts PyTorch state dicts of encoders, face embeddings and ResNet-50 to modules and variables.

IR-SE has the names of pSp and InsightFace_Pytorch, ResNet-50 those of torchvision.
"""

from collections.abc import Iterator
import functools
import itertools

import jax
import jax.numpy as jnp

from step_jax.errors import WeightsError
from step_jax.methods.psp import encoders, irse, resnet, torch_state
from step_jax.methods.psp.torch_state import Entry, State, Variables

Encoder = encoders.GradualStyleEncoder | encoders.IntoWEncoder | encoders.IntoWPlusEncoder


@torch_state.refusing
def encoder_from_torch(
  state: State, where: str = 'the state dict', size: int = encoders.SIZE
) -> tuple[Encoder, Variables]:
  """Reads one of pSp's three encoders; names and shapes determine which one, and its widths.

  Args:
    state: PyTorch name -> array, without the prefix `encoder.`.
    where: the file, for messages.
    size: size of the images, for encoders whose arrays do not determine it (all but the pyramid).

  Returns:
    The module and `{'params', 'batch_stats'}`.

  Raises:
    WeightsError: it is not an encoder's state dict, or is damaged.
  """
  of = lambda key: torch_state.shape_of(state, key, where)
  fields = _body_fields(state, where)
  fields.pop('squeeze')
  if 'linear.bias' in state and 'output_layer_2.3.bias' not in state:
    module = encoders.IntoWEncoder(**fields, size=size, style_dim=of('linear.bias')[0])
    head = torch_state.dense('linear', 'fc')
  elif 'output_layer_2.3.bias' in state:
    style_dim = of('output_layer_2.3.bias')[0]
    styles = of('linear.bias')[0] // style_dim
    module = encoders.IntoWPlusEncoder(styles, **fields, size=size, style_dim=style_dim)
    head = [
      *torch_state.batch_norm('output_layer_2.0', 'out_bn'),
      *torch_state.dense('output_layer_2.3', 'out_fc', torch_state.flattened(fields['widths'][-1])),
      *torch_state.dense('linear', 'fc'),
    ]
  else:
    # A head starts at a sixteenth of the image size and halves its map down to one pixel.
    convs = torch_state.count(state, r'styles\.0\.convs\.\d+\.weight')
    module = encoders.GradualStyleEncoder(
      num_styles=torch_state.count(state, r'styles\.\d+\.linear\.weight'),
      size=16 * 2**convs,
      style_dim=of('styles.0.linear.bias')[0],
      **fields,
    )
    head = _pyramid(module, convs)
  inputs = of('input_layer.0.weight')[1]
  image = jax.ShapeDtypeStruct((1, module.size, module.size, inputs), jnp.float32)
  entries = [*_body(state, fields), *head]
  return module, torch_state.convert(state, entries, _evaluating(module), image, where)


def _pyramid(module: encoders.GradualStyleEncoder, convs: int) -> Iterator[Entry]:
  yield from torch_state.dense('latlayer1', 'lateral0', torch_state.conv)
  yield from torch_state.dense('latlayer2', 'lateral1', torch_state.conv)
  fine = encoders.COARSE + encoders.MIDDLE
  for i in range(module.num_styles):
    level = (i >= encoders.COARSE) + (i >= fine)
    path = ('coarse/heads', 'middle/heads', 'fine/heads')[level]
    for j in range(convs + level):
      yield from torch_state.dense(f'styles.{i}.convs.{2 * j}', f'{path}/conv{j}', torch_state.conv)
    yield from torch_state.dense(f'styles.{i}.linear', f'{path}/fc')


@torch_state.refusing
def face_embedding_from_torch(
  state: State, where: str = 'the state dict'
) -> tuple[irse.FaceEmbedding, Variables]:
  """Reads ArcFace's IR-SE-50 or CurricularFace's IR-101, as determined by the arrays.

  Args:
    state: PyTorch name -> array.
    where: the file, for messages.

  Returns:
    The module and `{'params', 'batch_stats'}`.

  Raises:
    WeightsError: it is not such a state dict, or is damaged.
  """
  fields = _body_fields(state, where)
  module = irse.FaceEmbedding(**fields, affine='output_layer.4.weight' in state)
  entries = [
    *_body(state, fields),
    *torch_state.batch_norm('output_layer.0', 'bn'),
    *torch_state.dense('output_layer.3', 'fc', torch_state.flattened(fields['widths'][-1])),
    *torch_state.batch_norm('output_layer.4', 'out_bn', module.affine),
  ]
  faces = jax.ShapeDtypeStruct((1, irse.FACE_SIZE, irse.FACE_SIZE, 3), jnp.float32)
  return module, torch_state.convert(state, entries, module.init, faces, where)


def _body_fields(state: State, where: str) -> dict:
  """Depths, widths and kind of units; a stage starts with a unit with a projected shortcut."""
  units = torch_state.count(state, r'body\.\d+\.res_layer\.3\.weight')
  starts = [u for u in range(units) if not u or f'body.{u}.shortcut_layer.0.weight' in state]
  if len(starts) != len(irse.DEPTHS):
    raise WeightsError(f'{where} does not have the four stages of an IR network')
  shapes = [torch_state.shape_of(state, f'body.{u}.res_layer.3.weight', where) for u in starts]
  return {
    'depths': tuple(b - a for a, b in itertools.pairwise([*starts, units])),
    'widths': tuple(shape[0] for shape in shapes),
    'squeeze': 'body.0.res_layer.5.fc1.weight' in state,
  }


def _body(state: State, fields: dict) -> Iterator[Entry]:
  yield Entry('input_layer.0.weight', 'params/body/conv/kernel', torch_state.conv)
  yield from torch_state.batch_norm('input_layer.1', 'body/bn')
  yield Entry('input_layer.2.weight', 'params/body/prelu/slope')
  for u in range(sum(fields['depths'])):
    yield from unit(f'body.{u}', f'body/unit{u}', state)


def unit(key: str, path: str, state: State) -> Iterator[Entry]:
  """Arrays of an `irse.Unit`, with projection and squeeze-and-excitation if it has them."""
  yield from torch_state.batch_norm(f'{key}.res_layer.0', f'{path}/bn0')
  yield Entry(f'{key}.res_layer.1.weight', f'params/{path}/conv0/kernel', torch_state.conv)
  yield Entry(f'{key}.res_layer.2.weight', f'params/{path}/prelu/slope')
  yield Entry(f'{key}.res_layer.3.weight', f'params/{path}/conv1/kernel', torch_state.conv)
  yield from torch_state.batch_norm(f'{key}.res_layer.4', f'{path}/bn1')
  if f'{key}.res_layer.5.fc1.weight' in state:
    yield from squeeze_excite(f'{key}.res_layer.5', f'{path}/se')
  if f'{key}.shortcut_layer.0.weight' in state:
    shortcut = f'{key}.shortcut_layer'
    yield Entry(f'{shortcut}.0.weight', f'params/{path}/shortcut/kernel', torch_state.conv)
    yield from torch_state.batch_norm(f'{shortcut}.1', f'{path}/shortcut_bn')


def squeeze_excite(key: str, path: str) -> list[Entry]:
  """Arrays of an `irse.SqueezeExcite`."""
  return [
    Entry(f'{key}.{fc}.weight', f'params/{path}/{fc}/kernel', torch_state.conv)
    for fc in ('fc1', 'fc2')
  ]


@torch_state.refusing
def resnet50_from_torch(
  state: State, where: str = 'the state dict'
) -> tuple[resnet.ResNet50, Variables]:
  """Reads ResNet-50 with torchvision's names, without the classifier `fc`.

  In MoCo's checkpoints, names have the prefix `module.encoder_q.`, which is removed.

  Args:
    state: PyTorch name -> array.
    where: the file, for messages.

  Returns:
    The module and `{'params', 'batch_stats'}`.

  Raises:
    WeightsError: it is not such a state dict, or is damaged.
  """
  prefix = 'module.encoder_q.'
  if any(key.startswith(prefix) for key in state):
    state = torch_state.without_prefix(state, prefix)
  state = {key: x for key, x in state.items() if not key.startswith('fc.')}
  shape = torch_state.shape_of(state, 'conv1.weight', where)
  image = jax.ShapeDtypeStruct((1, 64, 64, shape[1]), jnp.float32)
  module = resnet.ResNet50()
  return module, torch_state.convert(state, _resnet50(), _evaluating(module), image, where)


def _evaluating(module):
  return functools.partial(module.init, train=False)


def _resnet50() -> Iterator[Entry]:
  yield Entry('conv1.weight', 'params/conv/kernel', torch_state.conv)
  yield from torch_state.batch_norm('bn1', 'bn')
  for stage, depth in enumerate(resnet.STAGES):
    for i in range(depth):
      key, path = f'layer{stage + 1}.{i}', f'stage{stage}_unit{i}'
      for j in range(3):
        yield Entry(f'{key}.conv{j + 1}.weight', f'params/{path}/conv{j}/kernel', torch_state.conv)
        yield from torch_state.batch_norm(f'{key}.bn{j + 1}', f'{path}/bn{j}')
      if not i:
        yield Entry(
          f'{key}.downsample.0.weight', f'params/{path}/shortcut/kernel', torch_state.conv
        )
        yield from torch_state.batch_norm(f'{key}.downsample.1', f'{path}/shortcut_bn')
