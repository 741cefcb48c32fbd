"""Operations on styles: injection, lists of layers, and the whole forward pass of pSp."""

import functools

import golden_vectors as golden
import jax
import jax.numpy as jnp
import numpy as np
import psp_vectors
import pytest

from step_jax.errors import ConfigError
from step_jax.methods.psp import encoder_state, generator, resizing, stylegan2_state, styles


def test_forward_pass_with_injection():
  vectors = psp_vectors.load('14_psp_forward_thin')
  encoder, encoder_own = encoder_state.encoder_from_torch(psp_vectors.draw(vectors, 'enc'))
  decoder, decoder_own = stylegan2_state.generator_from_torch(psp_vectors.draw(vectors, 'dec'))
  assert decoder.num_styles == encoder.num_styles == 10
  mean = vectors['latent_avg_512like']
  encode = jax.jit(functools.partial(encoder.apply, train=False))
  decode = jax.jit(functools.partial(decoder.apply, method='synthesize'))
  codes = encode(encoder_own, vectors['x_nhwc']) + mean
  golden.assert_close(codes, vectors['latents'])
  image = decode(decoder_own, codes)
  golden.assert_close(image, vectors['y_nhwc'])
  pooled = resizing.adaptive_pool(image, 256)[:, ::5, ::5]
  golden.assert_close(pooled, vectors['y_facepool256_sub5_nhwc'])
  w = decoder.apply(decoder_own, vectors['z_inject'], method='map')
  other = generator.broadcast(w, 10)
  golden.assert_close(other, vectors['inject_latents'])
  for name, injected in (
    ('mask', styles.inject(codes, other, styles.parse_layers('7-', 10))),
    ('mask_alpha05', styles.inject(codes, other, styles.parse_layers('5-9', 10), 0.5)),
    ('mask_zero', styles.inject(codes, jnp.zeros(()), styles.parse_layers('0,9', 10))),
  ):
    golden.assert_close(injected, vectors[f'latents_{name}'])
    golden.assert_close(decode(decoder_own, injected), vectors[f'y_{name}_nhwc'])


def test_layers_without_an_injected_style_can_take_the_mean():
  codes = jax.random.normal(jax.random.key(0), (2, 4, 3))
  mean = jnp.arange(3.0)
  injected = styles.inject(codes, mean, (1, 3))
  np.testing.assert_array_equal(injected[:, [0, 2]], codes[:, [0, 2]])
  np.testing.assert_array_equal(injected[:, [1, 3]], np.broadcast_to(mean, (2, 2, 3)))


@pytest.mark.parametrize(
  ('text', 'count', 'layers'),
  [
    ('8-', 10, (8, 9)),
    ('8-', 18, tuple(range(8, 18))),
    ('8-13', 18, tuple(range(8, 14))),
    ('8,9,10', 18, (8, 9, 10)),
    ('-1', 8, (7,)),
    ('-3-', 8, (5, 6, 7)),
    ('-3--2', 8, (5, 6)),
    ('0, 2-3,3', 8, (0, 2, 3)),
    ('', 8, ()),
  ],
)
def test_lists_of_layers(text, count, layers, caplog):
  assert styles.parse_layers(text, count) == layers
  assert not caplog.records


@pytest.mark.parametrize('text', ['8-17', '8,9,99', '8-999999999999'])
def test_layers_beyond_the_last_are_ignored_with_a_warning(text, caplog):
  assert styles.parse_layers(text, 10) == (8, 9)
  assert 'has 10 layers' in caplog.text


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a', "'a' is not an index"),
    ('8-\n', 'not an index'),
    ('1-2-3', 'not an index'),
    ('-11', 'before the first of 10'),
    ('12-', 'none of the 10 layers'),
    ('5-3', 'none of the 10 layers'),
    ('٣', 'not an index'),
  ],
)
def test_other_lists_are_one_clear_error(text, message):
  with pytest.raises(ConfigError, match=message) as error:
    styles.parse_layers(text, 10)
  assert '\n' not in str(error.value)
