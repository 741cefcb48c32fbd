"""A stand-in for gcloud, whose hosts are folders of this machine."""

import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent


def git(repository, *arguments):
  who = ('-c', 'user.name=Test', '-c', 'user.email=test@example.org')
  subprocess.run(['git', '-C', repository, *who, *arguments], check=True, capture_output=True)


class Cloud:
  """State of the stand-in for gcloud, and functions to call tpu_vm."""

  def __init__(self, folder: pathlib.Path, modules, capfd):
    self.folder = folder
    self.state = folder / 'state'
    self.modules = modules
    self._capfd = capfd
    self._faults = 0
    self.hosts(2)

  def hosts(self, number: int) -> None:
    (self.folder / 'hosts').write_text(f'{number}\n')

  def set(self, **files: str) -> None:
    for name, text in files.items():
      (self.folder / name).write_text(text)

  def fault(self, pattern, text='', status=1, times=1, seconds=0, twice=False, node='') -> None:
    """Makes the next matching calls fail, optionally setting the state of the node.

    With `twice` they run twice, as gcloud does after a dropped connection.
    """
    self._faults += 1
    folder = self.folder / 'faults' / str(self._faults)
    folder.mkdir(parents=True)
    fields = {'pattern': pattern, 'text': text, 'status': status, 'seconds': seconds}
    for name, value in fields.items():
      (folder / name).write_text(f'{value}\n')
    for i in range(times):
      (folder / f'token{i}').touch()
    if node:
      (folder / 'node').write_text(f'{node}\n')
    if twice:
      (folder / 'twice').touch()

  def call(self, *arguments):
    """Exit status, output and errors of a verb, for the node t1."""
    verb, *rest = arguments
    polls = ['--poll=0.01'] if verb in ('create', 'resume', 'delete') else []
    status = self.modules.tpu_vm.main([verb, '--name=t1', *polls, *rest])
    out = self._capfd.readouterr()
    return status, out.out, out.err

  def ok(self, *arguments) -> str:
    """Output of a verb that must succeed."""
    status, out, err = self.call(*arguments)
    assert status == 0, err
    return out

  def refuse(self, status: int, *arguments) -> str:
    """The one-line error of a verb that must fail."""
    found, _, err = self.call(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith('worker ')]
    assert (found, len(lines)) == (status, 1), err
    assert lines[0].startswith('tpu_vm: ')
    return lines[0]

  def create(self, *flags) -> None:
    self.ok('create', '--project=p', '--zone=z', '--type=v5litepod-16', *flags)

  def ready(self, *flags) -> None:
    """A node that is set up; create and setup run once, then their result is copied."""
    kept = self.modules.ready
    if not kept.exists():
      self.create()
      self.ok('setup')
      shutil.copytree(self.home(0), kept / 'home', symlinks=True)
      shutil.copytree(self.state, kept / 'state')
    else:
      for worker in range(int((self.folder / 'hosts').read_text())):
        shutil.copytree(kept / 'home', self.home(worker), symlinks=True)
      shutil.copytree(kept / 'state', self.state)
      self.set(node='READY\n', **{'request': 'ACTIVE\n'} if '--queued' in flags else {})
    path = self.state / 't1.json'
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, 'spot': '--spot' in flags, 'queued': '--queued' in flags}))

  def keep_image(self) -> None:
    """New nodes have hosts that are already set up."""
    (self.folder / 'image').symlink_to(self.modules.ready / 'home')

  def calls(self, *words: str) -> list[str]:
    """Calls of gcloud that contain all given words."""
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if all(word in line for word in words)]

  def home(self, worker: int) -> pathlib.Path:
    return self.folder / 'workers' / str(worker)

  def read(self, worker: int, name: str) -> str:
    return (self.home(worker) / 'step_jax_tpu' / name).read_text()

  def on_hosts(self, *command: str) -> None:
    scripts = self.folder.glob('workers/*/step_jax_tpu/code/launch/run_host.sh')
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    processes = [subprocess.Popen(['bash', script, *command], **quiet) for script in scripts]
    assert not any(process.wait() for process in processes)

  def take_away(self, **states: str) -> None:
    """Preempts the node."""
    self.on_hosts('stop', '0')
    self.set(**states)


@pytest.fixture(scope='session')
def checkout(tmp_path_factory):
  """A small git checkout with the scripts, and its modules."""
  repository = tmp_path_factory.mktemp('checkout')
  shutil.copytree(ROOT / 'launch', repository / 'launch', ignore=shutil.ignore_patterns('__*'))
  shutil.copy(ROOT / 'setup.py', repository)
  (repository / '.gitignore').write_text('__pycache__/\n')
  git(repository, 'init', '-q')
  git(repository, 'add', '.')
  git(repository, 'commit', '-qm', 'all')
  sys.path.insert(0, str(repository / 'launch'))
  modules = types.SimpleNamespace(folder=repository)
  modules.ready = tmp_path_factory.mktemp('ready') / 'host'
  for name in ('tpu_node', 'tpu_vm'):
    setattr(modules, name, importlib.import_module(name))
  yield modules
  sys.path.remove(str(repository / 'launch'))


@pytest.fixture
def cloud(checkout, tmp_path, monkeypatch, capfd):
  cloud = Cloud(tmp_path, checkout, capfd)
  programs, on_hosts = tmp_path / 'bin', tmp_path / 'host_bin'
  programs.mkdir()
  on_hosts.mkdir()
  (programs / 'gcloud').symlink_to(HERE / 'stand_ins' / 'gcloud')
  (on_hosts / 'python3.12').symlink_to(HERE / 'stand_ins' / 'python')
  monkeypatch.setenv('PATH', str(programs), prepend=':')
  monkeypatch.setenv('PYTHON', sys.executable)
  monkeypatch.setenv('FAKE', str(tmp_path))
  monkeypatch.setenv('HOST_PATH', f'{on_hosts}')
  monkeypatch.setenv('STEP_JAX_TPU_STATE', str(cloud.state))
  yield cloud
  cloud.on_hosts('stop', '0')
