"""The folder of compiled programs, and expansion of `~`."""

import pathlib

import jax
import pytest

from step_jax import files, places
from step_jax.train import same_data

OPTIONS = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')


@pytest.fixture
def restored():
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_cached_even_if_jax_was_imported_before(monkeypatch, tmp_path, restored):
  for name in ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
    monkeypatch.setenv(name, 'undone by the fixture')
    monkeypatch.delenv(name)
  monkeypatch.setenv('STEP_JAX_CACHE', str(tmp_path))
  places.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'compiled')
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5
  # The user's setting takes precedence.
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'elsewhere')
  places.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == 'elsewhere'


def test_a_tilde_expands_to_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert files.path('~/x') == places.expand('~/x') == tmp_path / 'x'
  assert files.path('~nobody-of-this-name/x') == pathlib.Path('~nobody-of-this-name/x')
  assert same_data.is_same_path('~/x', 'x')
