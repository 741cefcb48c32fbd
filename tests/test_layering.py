"""Allowed imports between packages, and where names of methods may appear."""

import ast
import pathlib
import re

import pytest

from step_jax import methods

ROOT = pathlib.Path(__file__).parents[1] / 'step_jax'
MODULES = {
  '.'.join(('step_jax', *path.relative_to(ROOT).with_suffix('').parts)).removesuffix(
    '.__init__'
  ): path
  for path in sorted(ROOT.rglob('*.py'))
}
# Shared by the methods, and independent of them.
SHARED = ('models', 'losses', 'data', 'weights', 'train')
APPLICATIONS = ('evaluate', 'report', 'demo', 'export', 'reproduce', 'bench', 'infer', 'cli')
METHODS = sorted(
  path.name for path in (ROOT / 'methods').iterdir() if (path / '__init__.py').is_file()
)
# Names of StEP's networks and codes: only its folder and configurations depend on them.
OF_STEP = re.compile(r'\b(style_encoder|z_dim|Translator)\b')


def imports(path: pathlib.Path) -> set[str]:
  """Modules of the package imported anywhere in a file; imported names count as modules too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
  return {name for name in found if name.startswith('step_jax')}


def within(name: str, package: str) -> bool:
  return name == package or name.startswith(f'{package}.')


def test_packages_exist():
  assert {'step'} <= set(METHODS)
  for package in (*SHARED, *APPLICATIONS):
    assert f'step_jax.{package}' in MODULES


@pytest.mark.parametrize('package', SHARED)
def test_shared_packages_know_no_method(package):
  for name, path in MODULES.items():
    if within(name, f'step_jax.{package}'):
      assert not [i for i in imports(path) if within(i, 'step_jax.methods')], name


@pytest.mark.parametrize('method', METHODS)
def test_methods_do_not_know_each_other(method):
  others = [f'step_jax.methods.{other}' for other in METHODS if other != method]
  for name, path in MODULES.items():
    if within(name, f'step_jax.methods.{method}'):
      seen = imports(path)
      assert not [i for i in seen for other in others if within(i, other)], name


@pytest.mark.parametrize('package', APPLICATIONS)
def test_applications_reach_methods_through_the_contract(package):
  for name, path in MODULES.items():
    if within(name, f'step_jax.{package}'):
      seen = imports(path)
      own = [i for i in seen for method in METHODS if within(i, f'step_jax.methods.{method}')]
      assert not own, f'{name}: {own}'


def test_names_of_step_are_only_in_its_folder():
  for name, path in MODULES.items():
    if within(name, 'step_jax.methods.step'):
      continue
    assert not OF_STEP.search(path.read_text('utf-8')), name


def test_names_of_step_are_not_public():
  import step_jax

  assert 'Translator' not in {*step_jax.__all__, *vars(step_jax)}
  own = {stage.name for stage in methods.METHODS['step'].stages}
  configs = list((ROOT.parent / 'configs').glob('*.py'))
  assert own <= {path.stem for path in configs}
  for path in configs:
    assert path.stem in own or not OF_STEP.search(path.read_text('utf-8')), path


@pytest.mark.parametrize('name', sorted(MODULES))
def test_modules_have_a_maximum_length(name):
  assert len(MODULES[name].read_text('utf-8').splitlines()) <= 400
