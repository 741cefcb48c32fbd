"""Runs each benchmark at the smallest size without a peer, and checks errors."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import cli, models
from step_jax.bench import case, machine, memory, ports, record, settings
from step_jax.bench import measure as measure_lib
from step_jax.bench.timing import Spread
from step_jax.errors import RunError
from step_jax.losses import gram_matrix, style_vector
from step_jax.methods.step import cases, searches

TINY = ['--size', 32, '--width', 4, '--batch', 2, '--repeats', 2, '--features', 'vgg16_low']


@pytest.fixture(autouse=True)
def small_ceilings(monkeypatch):
  monkeypatch.setitem(machine._MATRIX, 'cpu', 64)
  monkeypatch.setitem(machine._VECTOR, 'cpu', 2**12)
  monkeypatch.setattr(settings.Settings, 'at_least', 0.0)


def run(capsys, name, *options):
  status = cli.main([str(word) for word in ('bench', name, *options)])
  out = capsys.readouterr()
  return status, out.out, out.err


def measure(capsys, tmp_path, name, *options):
  """Record file of a benchmark, and its printed output."""
  path = tmp_path / 'record.json'
  status, out, err = run(capsys, name, *TINY, '--json', path, *options)
  assert status == 0, err
  return json.loads(path.read_text()), out


def check_case(found, items):
  assert found['items'] == items and len(found['rounds']) == 2
  seconds = found['seconds']
  assert 0 < seconds['lower'] <= seconds['median'] <= seconds['upper']
  assert found['items_per_second'] == pytest.approx(items / seconds['median'])
  rate = found['program']['flops'] / seconds['median']
  ceiling = found['ceilings']['matmul_flops_per_second']
  assert found['flops_share'] == pytest.approx(rate / ceiling)


@pytest.mark.parametrize('name', ['pretrain_step', 'translate_step'])
def test_steps(capsys, tmp_path, name):
  found, out = measure(capsys, tmp_path, name)
  (step,) = found['cases']
  check_case(step, 2)
  assert step['program']['counted'] == 'compiled program'
  # Memory holds at least the parameters and their second moments.
  assert step['program']['peak_bytes'] > 100_000 and step['bytes_share'] > 0
  assert found['machine']['versions']['jax'] == jax.__version__
  for word in (
    'seconds per call',
    'FLOPs (compiled program)',
    'peak bytes',
    'share of matmul',
    'cpu',
  ):
    assert word in out


def test_memory_of_a_process_of_its_own():
  tiny = dict(size=32, width=4, batch=2, features='vgg16_low', memory=True)
  chosen = settings.Settings.of('pretrain_step', **tiny)
  (found,) = memory.peaks(chosen, [memory.OURS]).values()
  # Lower bound: parameters and second moments in float32; upper: what imports alone would use.
  assert 8 * 30_000 < found < 2**30
  with pytest.raises(RunError, match='no such variant failed: '):
    memory.peaks(chosen, ['no such variant'])


def test_inference(capsys, tmp_path):
  found, _ = measure(capsys, tmp_path, 'inference')
  cases = {part['name'].split('/')[1]: part for part in found['cases']}
  assert cases.keys() == {'translate', 'encode', 'generate'}
  for part in cases.values():
    check_case(part, 2)
    assert part['ceilings']['matmul_dtype'] == 'float32'
  flops = {name: part['program']['flops'] for name, part in cases.items()}
  assert flops['translate'] == pytest.approx(flops['encode'] + flops['generate'], rel=0.02)


def test_searches(capsys, tmp_path):
  found, _ = measure(capsys, tmp_path, 'mining', '--count', 24)
  check_case(found['cases'][0], 24**2)
  found, _ = measure(capsys, tmp_path, 'imle', '--count', 30)
  check_case(found['cases'][0], 30)
  assert found['cases'][0]['program']['flops'] == 2 * 30 * 300 * 8


def test_input_pipeline(capsys, tmp_path):
  record_, out = measure(capsys, tmp_path, 'input_pipeline')
  found = record_['found']
  for name in ('examples_per_second', 'examples_per_core_second', 'fed_step_seconds'):
    assert found[name]['median'] > 0
  assert found['wait_share']['median'] < 1 and 0 < found['asking_share']['median'] < 1
  assert 'wait share' in out


def test_a_second_start_compiles_nothing_large(capsys, tmp_path):
  record_, out = measure(capsys, tmp_path, 'startup', '--repeats', 1, '--stage', 'pretrain')
  found = {name: spread['median'] for name, spread in record_['found'].items()}
  assert found['cold_programs'] == found['warm_programs'] > 0
  assert found['warm_compiled'] < found['cold_compiled']
  for kind in ('cold', 'warm'):
    marks = [
      found[f'{kind}_{name}'] for name in ('imported', 'opened', 'initialised', 'first_step')
    ]
    assert marks == sorted(marks) and marks[0] > 0
  assert 'cold first step' in out


def test_costs_of_a_program():
  x = jax.ShapeDtypeStruct((64, 32), jnp.float32)
  y = jax.ShapeDtypeStruct((32, 16), jnp.float32)
  _, program = case.compile_(jax.jit(jnp.matmul), x, y)
  assert program.flops == 2 * 64 * 32 * 16
  assert program.peak_bytes >= 4 * (64 * 32 + 32 * 16 + 64 * 16)


def test_work_trains_on():
  step = jax.jit(lambda state, batch, frozen: (state + batch * frozen, {}), donate_argnums=0)
  seen = []
  spy = lambda *args: (seen.append(float(args[0])), step(*args))[1]
  case.training(spy, jnp.float32(1), jnp.float32(2), jnp.float32(3))(3)
  assert seen == [1.0, 7.0, 13.0]


@pytest.mark.parametrize('features', ['vgg16', 'vgg16_low', 'squeezenet1_1', 'alexnet'])
def test_length_of_style_vectors(features):
  config = cases.make_config(settings.Settings.of('pretrain_step', features=features), 'pretrain')
  module = models.FEATURE_NETS[config.features.net](taps=tuple(config.features.taps))

  def vectors(image):
    taps, _ = module.init_with_output(jax.random.key(0), image)
    return style_vector({tap: gram_matrix(found) for tap, found in taps.items()})

  shape = jax.eval_shape(vectors, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)).shape
  assert searches.style_length(features) == shape[1]


def test_settings():
  assert settings.Settings.of('imle', size=0).count == 5000
  assert settings.Settings.of('mining', count=7, tf32=False) == settings.Settings(
    'mining', count=7, tf32=False
  )


def test_mistakes_are_one_line_errors(capsys, monkeypatch):
  def refuse(name, *options):
    status, out, err = run(capsys, name, *options)
    lines = [line for line in err.splitlines() if line.startswith('step-jax: ')]
    assert status == 2 and not out and len(lines) == 1 and 'Traceback' not in err
    return lines[0]

  assert 'multiple of 8' in refuse('translate_step', '--size', 20)
  assert "feature net 'no'" in refuse('translate_step', '--features', 'no')
  assert 'needs a training step' in refuse('imle', '--memory')
  assert 'bench pretrain_step' in refuse('translate_step', '--stage', 'pretrain')
  assert 'is not available for startup' in refuse('startup', '--vs', 'torch')
  assert 'features vgg16' in refuse('translate_step', '--vs', 'torch', '--features', 'alexnet')
  monkeypatch.setitem(sys.modules, 'torch', None)
  # Where PyTorch is installed, an earlier test may have imported the port. Remove both the module
  # and the attribute of the package, which `from step_jax.bench.ports import …` also reads.
  monkeypatch.delitem(sys.modules, 'step_jax.bench.ports.running', raising=False)
  monkeypatch.delattr(ports, 'running', raising=False)
  assert "pip install -e '.[bench]'" in refuse('imle', '--vs', 'torch')
  monkeypatch.setattr(jax, 'device_count', lambda: 8)
  assert 'but there are 8' in refuse('imle', '--vs', 'torch')


def test_a_peer_is_measured_in_alternation(monkeypatch):
  calls = []
  ours, theirs = (lambda n, name=name: calls.append(name) for name in 'ab')
  found = case.Case(
    'work', 10, 'things', ours, case.Program(flops=1e6, counted='formula'),
    lambda: [case.Variant('theirs', lambda: theirs)],
  )  # fmt: skip
  chosen = settings.Settings('imle', repeats=3, vs='torch', at_least=0.0)
  result = measure_lib.measure_case(chosen, found, exact=True)
  # Trial, warm-up, then alternating rounds.
  assert ''.join(calls) == 'b' * 5 + 'aabb' + 'ababab'
  peer = result['peer']
  assert peer['name'] == 'theirs' and len(peer['ratios']) == 3
  assert peer['ratios'][1] == result['rounds'][1] / peer['rounds'][1]
  printed = record.text(
    {'bench': 'imle', 'settings': chosen, 'machine': machine.describe(), 'cases': [result]}
  )
  assert 'pair by pair' in printed and 'bytes accessed' in printed
  nothing = case.Case('work', 1, 'x', ours, case.Program(), lambda: [])
  with pytest.raises(RunError, match='no variant of work runs here'):
    measure_lib.measure_case(chosen, nothing, exact=False)


def test_numbers_for_people():
  assert record._si(1234.0) == '1.234 k' and record._si(2.5e12) == '2.5 T'
  assert record._si(5e18) == '5000 P' and record._si(None) == 'unknown'
  assert record._value(Spread(1.0, 0.5, 2.0)) == '1 (0.5 to 2)'
  assert record.plain({'a': (Spread(1.0, 2.0, 3.0), np.float64(1))})['a'][0]['lower'] == 2.0


def test_convolutions_of_the_vendor_are_counted():
  shapes = {'%x': '32,32,32,32', '%kernel': '64,4,4,32', '%gradient': '32,16,16,64'}
  parameters = [
    f'  {name} = bf16[{shape}]{{3,2,1,0}} parameter(0)' for name, shape in shapes.items()
  ]
  calls = [
    f'  %conv.{i} = (bf16[{shapes[result]}]{{3,2,1,0}}, u8[0]{{0}}) '
    f'custom-call({first}, {second}), '
    'window={size=4x4 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, '
    f'custom_call_target="__cudnn$conv{kind}", metadata={{op_name="a"}}'
    for i, (kind, result, first, second) in enumerate(
      [
        ('BiasActivationForward', '%gradient', '%x', '%kernel, %bias'),
        ('BackwardFilter', '%kernel', '%x', '%gradient'),
        ('BackwardInput', '%x', '%gradient', '%kernel'),
      ]
    )
  ]
  one = 2 * (32 * 16 * 16 * 64) * (4 * 4 * 32)
  assert case.library_flops('\n'.join(parameters + calls)) == 3 * one
  assert case.library_flops('\n'.join(parameters)) == 0
