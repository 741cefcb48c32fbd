"""ONNX exports give the same results as step_jax; skipped without the converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from step_jax import config as config_lib
from step_jax import export
from step_jax.errors import RunError
from step_jax.export import onnx
from step_jax.methods.step import networks, samplers
from step_jax.methods.step import run as step_run

# Wide enough for convolutions that differ by platform.
FIELDS = {'model.encoder_width': 64, 'model.generator_width': 24}


@pytest.fixture(scope='module')
def run():
  pytest.importorskip('jax2onnx')
  config = config_lib.load(config_lib.stage_file('finetune'))
  config.update_from_flattened_dict(FIELDS)
  mapper_config = config_lib.load(config_lib.stage_file('mapper'))
  encoder, generator = networks.style_encoder(config), networks.generator(config)
  mapper = networks.mapper(mapper_config)
  params = {
    'style_encoder': networks.init_style_encoder(encoder, jax.random.key(0)),
    'generator': networks.init_generator(generator, jax.random.key(1), config.model.z_dim),
  }
  mapped = mapper.init(jax.random.key(2), jnp.zeros((1, config.model.z_dim)))['params']
  codes = np.random.default_rng(3).standard_normal((30, config.model.z_dim)).astype(np.float32)
  sampler = samplers.mapper(mapper_config, mapped, codes)
  return step_run.Translator(config, 0, params, codes, sampler)


def test_without_the_converter(monkeypatch):
  monkeypatch.setattr(onnx.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    RunError, match=r"pip install -e '\.\[onnx\]' && pip install --no-deps jax2onnx"
  ):
    onnx.check(32, smallest=16, multiple=8)


def test_impossible_sizes_are_refused():
  with pytest.raises(RunError, match='a multiple of 8'):
    onnx.check(36, smallest=16, multiple=8)


def test_equal_outputs_of_any_batch(run, tmp_path):
  onnxruntime = pytest.importorskip('onnxruntime')
  out = export.write(run, tmp_path / 'out', onnx_size=32)
  use = lambda name, **inputs: onnxruntime.InferenceSession(out / f'{name}.onnx').run(None, inputs)
  rng = np.random.default_rng(0)
  for shape in ((1, 32, 32, 3), (3, 32, 32, 3)):
    pictures = rng.integers(0, 256, shape, dtype=np.uint8)
    codes = run.encode(pictures)
    np.testing.assert_allclose(use('encode', pictures=pictures)[0], codes, rtol=1e-4, atol=1e-4)
    made = use('generate', sources=pictures, codes=codes)[0]
    assert made.dtype == np.uint8
    assert np.abs(made.astype(int) - run.translate(pictures, codes)).max() <= 1
  noise = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
  np.testing.assert_allclose(use('sample', noise=noise)[0], run.draw(5), rtol=1e-4, atol=1e-5)
