"""Setting up a host, with stand-ins for Python, uv, apt and the network."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PYTHON = HERE / 'stand_ins' / 'python'
TOOLS = ('bash', 'cat', 'cp', 'dirname', 'env', 'mkdir', 'mv', 'rm', 'sh', 'sha256sum', 'timeout')
# Logs its call, and creates the Python that it would install.
BRINGS = '#!/usr/bin/env bash\necho "{name} $*" >>"$HOME/calls"\n{body}\n'


class Host:
  """A home folder, and a PATH with only a few tools and the programs of a test."""

  def __init__(self, folder: pathlib.Path):
    self.home, self.bin = folder / 'home', folder / 'bin'
    self.home.mkdir()
    self.bin.mkdir()
    for tool in TOOLS:
      (self.bin / tool).symlink_to(shutil.which(tool))
    self.environment = {'HOME': str(self.home), 'PATH': str(self.bin)}

  def python(self, name: str) -> None:
    (self.bin / name).symlink_to(PYTHON)

  def program(self, name: str, body: str) -> None:
    path = self.bin / name
    path.write_text(BRINGS.format(name=name, body=body))
    path.chmod(0o755)

  def setup(self, *arguments: str):
    command = [ROOT / 'launch' / 'setup_host.sh', *arguments]
    options = {'env': self.environment, 'cwd': self.home, 'capture_output': True, 'text': True}
    return subprocess.run([self.bin / 'bash', *command], **options)

  def ok(self, *arguments: str) -> str:
    done = self.setup(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout

  def refuse(self, status: int, *arguments: str) -> str:
    """The last line of the error output of a command that must fail."""
    done = self.setup(*arguments)
    assert done.returncode == status, done.stderr
    return done.stderr.splitlines()[-1]

  def lines(self, name: str) -> list[str]:
    path = self.home / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def host(tmp_path):
  return Host(tmp_path)


def test_installs_once_with_the_pinned_versions(host):
  host.python('python3.12')
  out = host.ok()
  assert 'environment made: .venv' in out and '16 chips on 1 hosts' in out
  (install,) = host.lines('pip')
  assert f'--constraint {ROOT}/launch/constraints.txt --editable {ROOT}\\[tpu\\]' in install
  assert 'environment is ready: .venv' in host.ok()
  assert len(host.lines('pip')) == 1 and len(host.lines('made_by')) == 1
  assert len(host.lines('checks')) == 2


def test_steps_can_be_taken_alone(host):
  host.python('python3.12')
  host.ok('install', '--venv', 'my env')
  assert not host.lines('checks') and (host.home / 'my env' / 'installed').exists()
  host.ok('check', '--venv', 'my env', '--hosts', '4')
  assert host.lines('checks') == ['- 4'] and len(host.lines('pip')) == 1


def test_other_pins_install_again(host):
  host.python('python3.12')
  pins = host.home / 'my pins.txt'
  pins.write_text('jax==0.12.0\n')
  host.ok('install', '--extras', 'cuda13', '--constraints', str(pins))
  assert r'my\ pins.txt' in host.lines('pip')[0] and r'\[cuda13\]' in host.lines('pip')[0]
  pins.write_text('jax==0.12.0.1\n')
  host.ok('install', '--extras', 'cuda13', '--constraints', str(pins))
  host.ok('install')
  assert len(host.lines('pip')) == 3
  assert 'cannot read the constraints none.txt' in host.refuse(2, '--constraints', 'none.txt')


def test_a_failed_installation_is_retried(host):
  host.python('python3.12')
  (host.home / 'pip_fails').touch()
  assert 'setup_host: pip could not install .[tpu]' in host.refuse(4)
  (host.home / 'pip_fails').unlink()
  assert 'environment made' in host.ok()


def test_a_damaged_environment_is_recreated(host):
  host.python('python3.12')
  host.ok('install')
  (host.home / '.venv/bin/python').unlink()
  assert 'environment made' in host.ok('install')
  assert len(host.lines('made_by')) == 2


@pytest.mark.parametrize(
  ('there', 'taken'),
  [
    (('python3.13', 'python3.12', 'python3'), 'python3.12'),
    (('python3.13', 'python3'), 'python3.13'),
    (('python3',), 'python3'),
  ],
)
def test_uses_the_existing_python(host, there, taken):
  for name in there:
    host.python(name)
  host.ok('install')
  assert host.lines('made_by') == [str(host.bin / taken)]


def test_python_can_be_set(host):
  host.python('python3.12')
  host.python('mine')
  host.environment['PYTHON'] = 'mine'
  host.ok('install')
  assert host.lines('made_by') == [str(host.bin / 'mine')]


def test_uv_brings_python_where_there_is_an_old_one(host):
  """As in images of TPU VMs, python3 is 3.10 and there is no uv."""
  host.program('python3', 'exit 1')
  host.program('curl', 'echo "cp $HOME/uv_to_come $HOME/.local/bin/uv"')
  (host.home / '.local/bin').mkdir(parents=True)
  uv = host.home / 'uv_to_come'
  find = f'[[ $2 == install ]] || echo {PYTHON}'
  uv.write_text(BRINGS.format(name='uv', body=find))
  uv.chmod(0o755)
  host.ok('install')
  assert host.lines('made_by') == [str(PYTHON)]
  assert host.lines('calls')[-2:] == ['uv python install 3.12', 'uv python find 3.12']


def test_apt_brings_python_where_uv_cannot(host):
  host.program('curl', 'exit 6')
  host.program('sudo', 'shift; "$@"')
  host.program('add-apt-repository', '')
  host.program('apt-get', f'[[ $* != *install* ]] || cp {PYTHON} {host.bin}/python3.12')
  host.ok('install')
  assert host.lines('made_by') == [str(host.bin / 'python3.12')]
  apt = [line for line in host.lines('calls') if line.startswith('apt-get')]
  assert 'update' in apt[0] and apt[1].endswith('install python3.12 python3.12-venv')


def test_no_python_at_all(host):
  host.program('curl', 'exit 6')
  host.program('sudo', 'exit 1')
  if os.geteuid() == 0:
    host.program('add-apt-repository', 'exit 1')
  line = host.refuse(3, 'install')
  assert line.startswith('setup_host: no Python 3.12 or 3.13, and neither uv nor apt brought one')


def test_checks_report_what_is_missing(host):
  host.python('python3.12')
  host.ok('install')
  (host.home / 'no_chips').touch()
  assert 'setup_host: no chips' in host.refuse(5, 'check')
  assert 'JAX sees only the CPU' in host.setup('check').stderr
  (host.home / 'no_chips').unlink()
  (host.home / 'no_bucket').touch()
  host.ok('check')
  assert 'cannot write to gs://b' in host.refuse(6, 'check', '--bucket', 'gs://b')
  (host.home / 'no_bucket').unlink()
  host.ok('check', '--bucket', 'gs://b')


def test_wrong_use(host):
  assert 'unknown argument: --verbose' in host.refuse(2, '--verbose', '1')
  assert 'argument without a value, or unknown: --venv' in host.refuse(2, 'install', '--venv')


@pytest.mark.parametrize('chips', [True, False])
def test_the_check_of_chips_runs(tmp_path, chips):
  """The embedded programs, with stand-ins for jax and tensorstore."""
  script = (ROOT / 'launch/setup_host.sh').read_text()
  look, bucket = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON\n", script, re.S)
  (tmp_path / 'jax.py').write_text(
    'class distributed:\n  @staticmethod\n  def initialize(): pass\n'
    f'def default_backend(): return {"tpu" if chips else "cpu"!r}\n'
    'def process_count(): return 4\n'
    'def device_count(): return 16\n'
    'def local_device_count(): return 4\n'
  )
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}

  def python(program, *arguments):
    command = [sys.executable, '-', *arguments]
    options = {'input': program, 'text': True, 'capture_output': True, 'env': environment}
    return subprocess.run(command, **options)

  done = python(look, '4')
  if chips:
    assert done.stdout == '16 chips on 4 hosts, 4 of them here\n', done.stderr
    assert 'JAX sees 4 hosts of 8' in python(look, '8').stderr
  else:
    assert done.returncode and 'JAX sees only the CPU' in done.stderr


def test_the_check_of_the_bucket_leaves_no_object(tmp_path):
  """With tensorstore itself, on a folder instead of a bucket."""
  script = (ROOT / 'launch/setup_host.sh').read_text()
  program = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON\n", script, re.S)[1]
  folder = tmp_path / 'bucket'
  folder.mkdir()
  command = [sys.executable, '-', f'file://{folder}']
  subprocess.run(command, input=program, text=True, check=True)
  assert not [path for path in folder.rglob('*') if path.is_file()]
