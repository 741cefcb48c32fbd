"""Number of network evaluations per training step: no network runs more often than necessary.

Counts are read from the program, whose convolutions have the names of their modules.
"""

import collections
import re

import jax
import pytest

from step_jax import config as config_lib
from step_jax import methods

# The first convolution of every network.
FIRST = {
  'encode': 'content_encoder/conv0',
  'decode': 'decoder/res0/conv0',
  'style_encoder': 'StyleEncoder/conv0',
  'discriminator': 'scale0/conv0',
  'features': 'SqueezeNet11/conv1',
}


@pytest.fixture(autouse=True)
def names_of_modules():
  """Keeps names of modules in programs of the compilation cache."""
  jax.config.update('jax_compilation_cache_include_metadata_in_key', True)
  yield
  jax.config.update('jax_compilation_cache_include_metadata_in_key', False)


def lowered_step(stage, preset=''):
  config = config_lib.load(
    f'{config_lib.stage_file(stage)}:swatches,size=32,features=squeezenet1_1'
    + (f',preset={preset}' if preset else '')
  )
  config.batch_size = 2
  config.model.update(generator_width=4, discriminator_width=4, encoder_width=4)
  if preset:
    config.model.num_scales = 1
    config.features.update(taps=('conv1',), tap_weights=(1.0,))
  step = methods.abstract_step(config, (32, 32))
  return step.step.jitted_step().lower(step.state, step.batch, step.frozen)


def compiled_names(compiled):
  """Names of the convolutions of a compiled program."""
  return re.findall(r' convolution\(.*op_name="([^"]*)"', compiled.as_text())


def lowered_names(lowered):
  """Names of the convolutions of a lowered program."""
  text = lowered.as_text(debug_info=True)
  places = dict(re.findall(r'^(#loc\d+) = loc\("([^"]*)"', text, re.MULTILINE))
  return [places[at] for at in re.findall(r'stablehlo\.convolution.*loc\((#loc\d+)\)', text)]


def passes(names):
  """Network -> number of forward and backward passes of its first convolution."""
  forward, backward = collections.Counter(), collections.Counter()
  for network, first in FIRST.items():
    for name in names:
      if first in name.replace('jvp(', '').replace('transpose(', '').replace(')', ''):
        (backward if 'transpose(' in name else forward)[network] += 1
  return dict(forward), dict(backward)


@pytest.mark.parametrize('stage', ['translate', 'finetune'])
def test_the_step_of_step(stage):
  compiled = lowered_step(stage).compile()
  forward, backward = passes(compiled_names(compiled))
  # One translation serves both updates; fakes are judged once for both, reals once; the feature
  # net sees the fake and the target.
  assert forward == {
    'encode': 1, 'decode': 1, 'style_encoder': 1, 'discriminator': 2, 'features': 2
  }  # fmt: skip
  # Feature net: the gradient of the fake only; decoder block: those of input and kernel; first
  # layer of a network: that of the kernel; discriminator: for real, for fake and for the generator.
  # A frozen encoder has none. The input gradient of a convolution of stride 2 is four convolutions.
  trained = {'style_encoder': 1} if stage == 'finetune' else {}
  assert backward == {'encode': 1, 'decode': 2, 'discriminator': 2 + 4, 'features': 4, **trained}
  analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
  # Norms of gradients take two of these per parameter.
  assert analysis['flops'] < (98e6 if stage == 'finetune' else 95e6)
  assert memory.temp_size_in_bytes < 9.5e6
  # The state is updated in place.
  assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes


def test_the_step_of_munit_p():
  """The lowered program, because compilation takes a minute."""
  forward, _ = passes(lowered_names(lowered_step('translate', 'munit_p_v1')))
  # Decoded: the own, swapped, cyclic and drawn style of both pairs; encoded: targets, swapped and
  # drawn images. Each of two discriminators judges its fakes and its reals. The second objective
  # repeats the rest.
  assert forward == {
    'encode': 1 + 1, 'decode': 4 + 2, 'style_encoder': 3 + 3, 'discriminator': 4 + 3,
    'features': 3 + 1,
  }  # fmt: skip


@pytest.mark.long
def test_the_compiled_step_of_munit_p():
  compiled = lowered_step('translate', 'munit_p_v1').compile()
  forward, _ = passes(compiled_names(compiled))
  # The second objective uses the swapped images again, which the compiler does not deduplicate: one
  # more decoding, two encodings and one judgement.
  assert forward == {
    'encode': 1, 'decode': 4 + 1, 'style_encoder': 3 + 2, 'discriminator': 4 + 1, 'features': 3
  }  # fmt: skip
