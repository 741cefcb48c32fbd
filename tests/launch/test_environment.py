"""Creation of the environment by the first two commands, with stand-ins for Python."""

import os
import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent.parent / 'launch'
TOOLS = ('bash', 'cat', 'cksum', 'cp', 'mkdir', 'rm')
# Answers the checks as a Python of its version would, and makes environments whose Python is a copy
# of itself. Logs calls of pip in the file `pip`; pip fails if a file `pip_fails` exists.
PYTHON = """#!{bash}
case "$*" in
  --version) echo Python {version} ;;
  *'import ensurepip'*)
    [[ "$*" == *'(3, 12) <= '* && {minor} -ge 12 && {minor} -le "${{@: -1}}" && {venv} == True ]] ;;
  '-c import pip') [[ ! -e no_pip ]] ;;
  '-m venv --clear .venv')
    rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo "$0" >>made_by ;;
  '-m pip '*)
    printf '%s\\n' "${{@: -1}}" >>pip
    [[ ! -e pip_fails ]] || {{ echo 'ERROR: no such version' >&2; exit 1; }} ;;
  *) exit 9 ;;
esac
"""


class Checkout:
  """A folder with the script, a home folder, and a PATH with only the programs of a test."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.home, self.bin = folder / 'code', folder / 'home', folder / 'bin'
    for path in (self.folder / 'launch', self.home, self.bin):
      path.mkdir(parents=True)
    shutil.copy(LAUNCH / 'environment.sh', self.folder / 'launch')
    (self.folder / 'setup.py').touch()
    for tool in TOOLS:
      (self.bin / tool).symlink_to(shutil.which(tool))
    self.environment = {'HOME': str(self.home), 'PATH': str(self.bin)}

  def python(self, path: str, version: str, venv: bool = True) -> str:
    """Creates a Python at `path`, relative to the folder of programs."""
    text = PYTHON.format(
      bash=shutil.which('bash'), version=version, minor=version.split('.')[1], venv=venv
    )
    return self.program(path, text)

  def program(self, path: str, text: str) -> str:
    target = pathlib.Path(os.path.normpath(self.bin / path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o755)
    return str(target)

  def shim(self, name: str) -> None:
    """A shim of a version manager for a version that is installed but not selected."""
    self.program(
      name, f'#!{shutil.which("bash")}\necho "pyenv: {name}: command not found" >&2; exit 127\n'
    )

  def run(self, script: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
      [self.bin / 'bash', '-c', f'set -euo pipefail; source launch/environment.sh; {script}'],
      cwd=self.folder,
      env={**self.environment, **variables},
      capture_output=True,
      text=True,
    )

  def make(self, extras: str = '', **variables: str) -> str:
    done = self.run(f"make_environment '{extras}'", **variables)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout

  def refuse(self, **variables: str) -> str:
    """The last line of the error output of a command that must fail."""
    done = self.run("make_environment ''", **variables)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]

  def find(self, newest: str = '', **variables: str) -> str:
    return self.run(f'find_python {newest}', **variables).stdout.strip()

  def lines(self, name: str) -> list[str]:
    path = self.folder / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


@pytest.mark.parametrize('extras, wanted', [('', '.'), ('test', '.[test]')])
def test_installs_once(checkout, extras, wanted):
  python = checkout.python('python3.12', '3.12.1')
  assert 'Making .venv with Python 3.12.1 …' in checkout.make(extras)
  assert checkout.make(extras) == ''
  assert checkout.lines('pip') == [wanted] and checkout.lines('made_by') == [python]
  (checkout.folder / 'setup.py').write_text('# Other requirements.')
  assert 'Installing' in checkout.make(extras)
  assert len(checkout.lines('pip')) == 2 and len(checkout.lines('made_by')) == 1


def test_a_moved_checkout_is_installed_again(checkout, tmp_path):
  checkout.python('python3.12', '3.12.1')
  checkout.make()
  checkout.folder = checkout.folder.rename(tmp_path / 'moved')
  checkout.make()
  assert len(checkout.lines('pip')) == 2


def test_finds_a_python_hidden_by_a_shim(checkout):
  """The first `python3.13` on PATH fails and `python3` is old; later ones and pyenv's work."""
  checkout.shim('python3.12')
  checkout.shim('python3.13')
  checkout.python('python3', '3.11.7')
  assert checkout.find() == ''
  checkout.python('../home/.pyenv/versions/3.11.7/bin/python', '3.11.7')
  later = checkout.python('../home/.pyenv/versions/3.13.0/bin/python', '3.13.0')
  assert checkout.find() == later
  newer = checkout.python('../pyenv/versions/3.12.1/bin/python', '3.12.1')
  assert checkout.find(PYENV_ROOT=str(checkout.home.parent / 'pyenv')) == newer
  second = checkout.python('../second/python3.13', '3.13.5')
  assert checkout.find(PATH=f'{checkout.bin}:{checkout.home.parent}/second') == second


def test_uses_only_a_python_that_can_create_environments(checkout):
  checkout.python('python3.12', '3.12.1', venv=False)
  python = checkout.python('python3', '3.14.0')
  assert checkout.find() == python
  assert checkout.find('13') == ''


def test_no_home_is_not_an_error(checkout):
  python = checkout.python('python3', '3.12.1')
  del checkout.environment['HOME']
  assert checkout.find() == python


def test_python_can_be_chosen_and_is_not_replaced(checkout):
  checkout.python('python3.12', '3.12.1')
  mine = checkout.python('mine', '3.13.0')
  old = checkout.python('old', '3.11.7')
  assert checkout.find(PYTHON='mine') == mine
  assert checkout.refuse(PYTHON=old).startswith(f'{old}: no Python 3.12 or newer')


def test_no_python_is_one_line(checkout):
  checkout.python('python3', '3.11.7')
  line = checkout.refuse()
  assert line.startswith('PATH: no Python 3.12 or newer with venv: install one')


@pytest.mark.parametrize('there', ['3.11.7', '3.12.1'])
def test_an_environment_of_another_python_is_recreated(checkout, there):
  checkout.python('../code/.venv/bin/python', there)
  (checkout.folder / '.venv/.installed-').write_text('what an older release left')
  mine = checkout.python('mine', '3.13.0')
  out = checkout.make(PYTHON='mine')
  assert f'Making .venv with Python 3.13.0 in place of that with Python {there} …' in out
  assert checkout.lines('made_by') == [mine]
  # If no version is requested, an environment that is new enough is kept.
  checkout.python('python3.12', '3.12.1')
  assert checkout.make() == ''


def test_an_old_or_broken_environment_is_recreated(checkout):
  python = checkout.python('python3.12', '3.12.1')
  checkout.python('../code/.venv/bin/python', '3.11.7')
  checkout.make()
  checkout.program('../code/.venv/bin/python', '#!/no/such/interpreter\n')
  checkout.make()
  (checkout.folder / 'no_pip').touch()
  checkout.make()
  assert checkout.lines('made_by') == [python] * 3


def test_a_failed_installation_is_reported_and_retried(checkout):
  checkout.python('python3.12', '3.12.1')
  (checkout.folder / 'pip_fails').touch()
  done = checkout.run("make_environment 'test'")
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    'ERROR: no such version',
    'pip could not install .[test] into .venv: see above, then repeat the command.',
  ]
  (checkout.folder / 'pip_fails').unlink()
  checkout.make('test')
  assert len(checkout.lines('pip')) == 2
