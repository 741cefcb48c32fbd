"""Dockerfile and GKE Job, checked without Docker: files, packages and command."""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import package
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'


def instructions() -> list[tuple[str, str]]:
  text = re.sub(r'\\\n', ' ', (LAUNCH / 'Dockerfile').read_text())
  lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
  return [tuple(line.split(maxsplit=1)) for line in lines]


def of(name: str) -> list[str]:
  return [text for instruction, text in instructions() if instruction == name]


@pytest.fixture(scope='module')
def image(tmp_path_factory):
  """The work folder of the image, with only the files that the Dockerfile copies."""
  folder = tmp_path_factory.mktemp('image')
  for text in of('COPY'):
    *sources, to = shlex.split(text)
    for source in sources:
      path = ROOT / source
      if path.is_dir():
        shutil.copytree(path, folder / to, ignore=shutil.ignore_patterns('__pycache__'))
      else:
        (folder / to).mkdir(exist_ok=True)
        shutil.copy(path, folder / to)
  return folder


def test_a_python_that_is_tested():
  version = re.fullmatch(r'python:(3\.\d+)-slim', of('FROM')[0])[1]
  assert f'Programming Language :: Python :: {version}' in package.setup_arguments()['classifiers']


def test_installs_the_checkout_with_pinned_versions_and_an_extra(image):
  (line,) = of('RUN')
  words = shlex.split(line)
  assert words[:2] == ['pip', 'install'] and words[-2:] == ['--editable', '.[${EXTRA}]']
  assert (image / words[words.index('--constraint') + 1]).is_file()
  extra = of('ARG')[0].removeprefix('EXTRA=')
  assert extra in package.setup_arguments()['extras_require']


def test_the_copied_files_suffice(image):
  """Runs setup.py, with a stand-in for setuptools, and the entry point."""
  stand_in = 'def setup(**given): print(given["version"])\ndef find_packages(include): return []\n'
  (image / 'setuptools.py').write_text(stand_in)
  done = subprocess.run([sys.executable, 'setup.py'], cwd=image, capture_output=True, text=True)
  assert re.match(r'\d+\.', done.stdout), done.stderr
  (image / 'setuptools.py').unlink()
  entry = json.loads(of('ENTRYPOINT')[0])
  assert entry[0] == 'python'
  job = containers()[0]['args']
  config = next(word for word in job if word.startswith('--config=')).partition('=')[2]
  check = f'from step_jax import config; config.load({config!r})'
  for arguments in ([*entry[1:], '--help'], ['-c', check]):
    done = subprocess.run([sys.executable, *arguments], cwd=image, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def containers() -> list[dict]:
  _, job = yaml.safe_load_all((LAUNCH / 'gke.yaml').read_text())
  return job['spec']['template']['spec']['containers']


def test_the_job_of_gke_runs_one_process_per_host():
  service, job = yaml.safe_load_all((LAUNCH / 'gke.yaml').read_text())
  spec, pod = job['spec'], job['spec']['template']['spec']
  assert service['spec']['clusterIP'] == 'None'
  assert service['spec']['selector'] == {'job-name': job['metadata']['name']}
  assert pod['subdomain'] == service['metadata']['name']
  assert spec['completionMode'] == 'Indexed' and spec['completions'] == spec['parallelism']
  (container,) = containers()
  chips = container['resources']['limits']['google.com/tpu']
  rows, columns = pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
  assert chips * spec['completions'] == int(rows) * int(columns)
  assert '--distributed' in container['args']
  mounts = {mount['mountPath'] for mount in container['volumeMounts']}
  assert mounts == set(of('VOLUME'))
