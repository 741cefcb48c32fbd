"""`step-jax doctor` reports each problem with its solution, and nothing else."""

import dataclasses
import os
import pathlib
import sys

import package
import pytest

import step_jax
from step_jax import cli, console, doctor, places
from step_jax.weights import nets

WELL = doctor.Description(
  python='3.12.1',
  packages={'jax': '0.12.0', 'jaxlib': '0.12.0', 'flax': '0.12.12'},
  unmet=(),
  backend='gpu',
  devices=(doctor.Device('NVIDIA H200', 100 * 2**30),),
  jax_error='',
  jax_platforms='',
  gpu='NVIDIA H200, 143771 MiB',
  tpu=False,
  tpu_users=(),
  cores=8,
  memory=32 * 2**30,
  disks={'/cache': 100 * 2**30},
  weights={**dict.fromkeys(nets.NAMES, ''), 'vgg16': 'vgg16@01234567'},
  store='/weights',
  compiled='/cache/compiled',
  compiled_files=3,
  extras={'cuda12': True, 'cuda13': False, 'tpu': False, 'onnx': False},
)


def test_a_machine_without_problems():
  assert doctor.problems(WELL) == []
  text = doctor.text(WELL, [])
  for part in ('0.12.12', 'NVIDIA H200, 100.0 GiB', 'TF32', 'vgg16@01234567', '/cache/compiled'):
    assert part in text
  assert text.endswith('No problems found.')


CPU = {'backend': 'cpu', 'devices': (doctor.Device('cpu', None),)}
NO_CUDA = {'extras': {'cuda12': False, 'cuda13': False, 'tpu': False}}


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'python': '3.11.7'}, '3.12 or newer'),
    ({'packages': {'jax': '0.12.0', 'jaxlib': '0.11.2'}}, 'have different versions'),
    ({'unmet': ('flax is missing, >=0.12 is required',)}, 'required: run `pip install -e .`'),
    ({**CPU, **NO_CUDA}, "pip install -e '.[cuda12]'"),
    ({**CPU}, 'CUDA_VISIBLE_DEVICES'),
    ({**CPU, 'extras': {**NO_CUDA['extras'], 'cuda13': True}}, 'CUDA 13 needs 580 or newer'),
    ({**CPU, **NO_CUDA, 'gpu': '', 'tpu': True}, "pip install -e '.[tpu]'"),
    ({'tpu_users': (17, 23)}, 'in use by process 17, 23'),
    ({'backend': '', 'devices': (), 'jax_error': 'no chip'}, 'cannot start (no chip)'),
    ({'disks': {'/cache': 2**30}}, 'nearly full (1.0 GiB free)'),
    ({'disks': {'/cache': 2**20}}, 'is full'),
    ({'disks': {'/cache': None}}, '/cache cannot be written to'),
    ({'memory': 2 * 2**30}, 'only 2.0 GiB of memory'),
    ({'weights': {**WELL.weights, 'alexnet': '!it is damaged'}}, 'it is damaged'),
  ],
)
def test_each_problem_is_reported_once_with_its_solution(changes, said):
  found = dataclasses.replace(WELL, **changes)
  wrong = doctor.problems(found)
  assert len(wrong) == 1 and said in wrong[0], wrong
  assert said in ' '.join(doctor.text(found, wrong).split())


def test_packages_are_compared_with_the_requirements(monkeypatch):
  needed = package.setup_arguments()['install_requires']
  monkeypatch.setattr(doctor.metadata, 'requires', lambda _: needed)
  assert list(doctor._unmet()) == []
  versions = {'flax': '', 'orbax-checkpoint': '0.11.36'}
  version = doctor._version
  monkeypatch.setattr(doctor, '_version', lambda name: versions.get(name, version(name)))
  assert list(doctor._unmet()) == [
    'flax is missing, >=0.11.2 is required',
    'orbax-checkpoint 0.11.36, <1.0,>=0.12 is required',
  ]


def test_a_missing_package_is_one_line(monkeypatch, capsys):
  monkeypatch.delitem(sys.modules, 'step_jax.cli')
  monkeypatch.delattr(step_jax, 'cli')
  monkeypatch.setitem(sys.modules, 'argparse', None)
  assert console.main() == 2
  told = capsys.readouterr().err
  assert told.startswith('step-jax: ') and told.endswith('`pip install -e .` in the checkout\n')


def test_a_missing_platform(monkeypatch):
  def refuse():
    raise AssertionError

  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  monkeypatch.setattr('jax.local_devices', refuse)
  assert doctor._devices() == ('', (), 'no device for JAX_PLATFORMS=cuda')


def test_the_extras_are_those_of_the_package():
  # `cuda` is another name of `cuda12`.
  assert {*doctor._EXTRAS, 'cuda'} == set(package.setup_arguments()['extras_require'])


def test_a_cpu_that_was_asked_for_is_no_fault():
  assert doctor.problems(dataclasses.replace(WELL, **CPU, jax_platforms='cpu')) == []
  assert doctor.problems(dataclasses.replace(WELL, **CPU, **NO_CUDA, gpu='')) == []


def test_this_machine(capsys, monkeypatch, tmp_path):
  """The exit status is 1 if there are problems, such as damaged weights; nothing is written."""
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'weights'))
  status = cli.main(['doctor', '--workdir', str(tmp_path / 'run')])
  out = ' '.join(capsys.readouterr().out.split())  # Undo the wrapping of long lines.
  assert status == int('Problems' in out) and out.count('(bundled)') == 2
  assert f'{tmp_path}/run' in out and not list(tmp_path.iterdir())
  places.weights().mkdir()
  (places.weights() / 'vgg16.safetensors').write_bytes(b'nothing of use')
  assert 'vgg16.safetensors' in doctor.problems(doctor.look())[-1]


def test_other_users_of_a_chip_are_found(monkeypatch, tmp_path):
  chip = tmp_path / 'accel0'
  chip.touch()
  monkeypatch.setattr(doctor, '_tpu_chips', lambda: [chip])
  assert doctor._tpu_users() == ()
  with chip.open():
    me = os.getpid()
    # Only other processes count as users.
    assert doctor._tpu_users() == ()
    monkeypatch.setattr(os, 'getpid', lambda: -1)
    assert doctor._tpu_users() == (me,)


def test_a_folder_that_cannot_be_written_to(monkeypatch):
  monkeypatch.setattr(os, 'access', lambda *_: False)
  assert doctor._free(pathlib.Path('/no/such/folder')) is None
