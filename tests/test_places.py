"""Where compiled programs are kept."""

import jax
import pytest

from step_jax import places

OPTIONS = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')


@pytest.fixture
def restored():
  before = {name: getattr(jax.config, name) for name in OPTIONS}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_programs_are_kept_though_jax_was_imported_before(monkeypatch, tmp_path, restored):
  for name in ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'):
    monkeypatch.setenv(name, 'undone by the fixture')
    monkeypatch.delenv(name)
  monkeypatch.setenv('STEP_JAX_CACHE', str(tmp_path))
  places.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'compiled')
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5
  # What the user says goes.
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'elsewhere')
  places.keep_compiled()
  assert jax.config.jax_compilation_cache_dir == 'elsewhere'
