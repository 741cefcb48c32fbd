"""Pinned versions satisfy the requirements of this package and its dependencies."""

from importlib import metadata
import pathlib
import subprocess
import sys

import package
from packaging import requirements, utils, version
import pytest

CONSTRAINTS = pathlib.Path(__file__).parent.parent.parent / 'launch' / 'constraints.txt'
SETUP = package.setup_arguments()
EXTRAS = SETUP['extras_require']
# Extras for hosts; all their requirements are pinned.
HOSTS = ('tpu', 'cuda', 'cuda12', 'cuda13', 'gcs', 'hub')


def parsed(*extras: str) -> list[requirements.Requirement]:
  texts = [*SETUP['install_requires'], *(text for extra in extras for text in EXTRAS[extra])]
  return list(map(requirements.Requirement, texts))


def key(requirement: requirements.Requirement) -> str:
  return utils.canonicalize_name(requirement.name)


@pytest.fixture(scope='module')
def pins() -> dict[str, version.Version]:
  lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith('#')]
  split = dict(line.split('==') for line in lines)
  return {utils.canonicalize_name(name): version.Version(pin) for name, pin in split.items()}


def test_everything_that_hosts_install_is_pinned(pins):
  """Nothing else is pinned, except jaxlib."""
  assert set(pins) - {key(requirement) for requirement in parsed(*HOSTS)} == {'jaxlib'}
  assert {key(requirement) for requirement in parsed(*HOSTS)} <= set(pins)


def test_the_pins_suit_every_requirement(pins):
  """Requirements of `setup.py` and of all installed dependencies."""
  pending = [('step_jax', requirement) for requirement in parsed(*EXTRAS)]
  seen = set()
  while pending:
    asking, requirement = pending.pop()
    name = key(requirement)
    assert name not in pins or pins[name] in requirement.specifier, f'{asking} asks {requirement}'
    for extra in ('', *requirement.extras):
      if (name, extra) in seen:
        continue
      seen.add((name, extra))
      try:
        needed = metadata.requires(name) or []
      except metadata.PackageNotFoundError:
        continue
      for other in map(requirements.Requirement, needed):
        if other.marker is None or other.marker.evaluate({'extra': extra}):
          pending.append((name, other))
  assert ('pillow', '') in seen


@pytest.mark.long
@pytest.mark.parametrize('extra', EXTRAS)
def test_pip_resolves_every_extra_with_the_pins(extra):
  def dry_run(*arguments):
    command = [sys.executable, '-m', 'pip', 'install', '--dry-run', '--quiet', *arguments]
    return subprocess.run(command, capture_output=True, text=True)

  if dry_run('--ignore-installed', '--no-deps', 'packaging').returncode:
    pytest.skip('no package registry can be reached')
  done = dry_run('--constraint', str(CONSTRAINTS), *map(str, parsed(extra)))
  assert done.returncode == 0, done.stderr
