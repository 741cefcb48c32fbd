"""Fields of the configurations of both stages: the generator, and the terms of the encoder."""

from collections.abc import Callable
import dataclasses

from step_jax.fields import COUNT, NOT_NEGATIVE, SHARED, TEXT, Field, Rule, each, number, one_of

POWER_OF_TWO = 'a power of two'


def power_of_two(least: int, also: tuple[int, ...] = ()) -> Rule:
  """Powers of two from `least`, and some numbers besides."""
  accepts: Callable[[int], bool] = lambda size: (
    size in also or (size >= least and not size & (size - 1))
  )
  return Rule(', or '.join([f'{POWER_OF_TWO} from {least}', *map(str, also)]), accepts)


# What a generator is made of: both stages have it, the second one takes it over from the first.
GENERATOR = {
  'model.size': Field(
    0, 'side of the generated images, px; 0: that of `data.crop`', power_of_two(8, also=(0,))
  ),
  'model.channel_multiplier': Field(
    2.0,
    "of the channels from 64 px on: 2 is StyleGAN2's configuration F, 1 its configuration E",
    number('above 0'),
  ),
  'model.max_channels': Field(512, 'channels of a level at most', COUNT),
  'model.style_dim': Field(512, 'length of a style vector', COUNT),
  'model.mapping_depth': Field(8, 'layers of the mapping network', COUNT),
}

STYLEGAN2 = GENERATOR | {
  'augment': Field(
    (),
    'how images are augmented for the discriminator, differentiably: some of `color`, '
    '`translation`, `cutout`; helps where there are few images',
    each(str, one_of('color', 'translation', 'cutout'), 'texts', range(4)),
  ),
  'style_mixing': Field(
    0.9, 'how often the layers of a batch have two styles', number('at least 0', 'at most 1')
  ),
  'path_shrink': Field(2, 'by what the batch of path lengths is smaller', COUNT),
  'loss.r1': Field(10.0, 'squared gradients of the discriminator at real images', NOT_NEGATIVE),
  'loss.path': Field(
    2.0, 'squared differences of path lengths from their running mean', NOT_NEGATIVE
  ),
  'interval.r1': Field(16, 'steps from one R1 term to the next', COUNT),
  'interval.path': Field(4, '… of path lengths', COUNT),
  'optimizer.learning_rate': Field(0.002, 'of all networks, where it is one number', NOT_NEGATIVE),
  'optimizer.ema_decay': Field(
    0.5 ** (32 / 10_000),
    'weight of the old average of the generator in each step',
    number('at least 0', 'below 1'),
  ),
}

TASKS = ('translate', 'encode', 'frontalize', 'sketch', 'segmentation', 'super_resolution')
ENCODERS = ('pyramid', 'into_w', 'into_w_plus', 'resnet50_linear')

_TERMS = {
  'l2': (1.0, 'mean squared difference of output and target'),
  'l1': (0.0, 'mean absolute difference of output and target'),
  'lpips': (0.8, 'LPIPS of output and target'),
  'identity': (0.0, 'difference of identities by ArcFace; for aligned faces'),
  'moco': (0.0, "difference of MoCo's features; for anything but faces"),
  'l2_crop': (0.0, '`l2` of the inner part of aligned faces, at 256 px'),
  'lpips_crop': (0.0, '`lpips` of the same'),
  'w_norm': (0.0, 'distance of styles from the mean style'),
  'mixing': (
    0.0,
    'mean absolute difference of output and output of styles that are mixed within the batch; '
    'lowers diversity',
  ),
}

PSP = GENERATOR | {
  # Read for `segmentation`, and to score whether outputs keep the structure; by default of
  # CelebAMask-HQ.
  'data.palette': dataclasses.replace(SHARED['data.palette'], default='', rule=TEXT),
  'data.classes': dataclasses.replace(SHARED['data.classes'], default=19),
  'data.flip_swaps': SHARED['data.flip_swaps'],
  'task': Field(
    'translate',
    'what the encoder reads: the source of a pair (of lone images themselves), the target itself '
    '(`encode`), mirrored at random (`frontalize`), a grey drawing, a label map, or the target '
    'reduced and enlarged again',
    one_of(*TASKS),
  ),
  'train_generator': Field(False, 'whether the generator is trained along with the encoder'),
  'start_from_mean': Field(True, 'whether the encoder gives offsets from the mean style'),
  'body_weights': Field(
    '',
    'file from which the body of the encoder starts: ArcFace IR-SE-50, or a ResNet-50 for the '
    'encoder `resnet50_linear`; empty: from scratch',
  ),
  'data.factors': Field(
    (1, 2, 4, 8, 16, 32),
    'reductions that super-resolution undoes; one is drawn for each image',
    each(int, COUNT, 'integers'),
  ),
  'model.encoder': Field(
    'pyramid',
    'kind of the encoder: styles from three levels of a pyramid, one style for all layers, styles '
    'from the last level, or from a ResNet-50',
    one_of(*ENCODERS),
  ),
  'model.encoder_size': Field(
    256, 'side of what the encoder reads, px; images are resized to it', power_of_two(64)
  ),
  'model.body_width': Field(
    64, 'channels of the first stage of the body; doubled in each stage', number('at least 16')
  ),
  'model.body_depths': Field(
    (3, 4, 14, 3), 'units of the four stages of the body', each(int, COUNT, 'four integers', (4,))
  ),
  'model.num_styles': Field(
    0, 'styles that the encoder `resnet50_linear` gives; 0: one for each layer', NOT_NEGATIVE
  ),
  'features.identity': Field(
    '',
    'file of ArcFace IR-SE-50, for `loss.identity`; empty: that in the store of weights',
  ),
  'features.moco': Field(
    '',
    "file of MoCo's ResNet-50, for `loss.moco`; empty: that in the store of weights",
  ),
  'optimizer.name': Field('ranger', 'kind of the optimiser', one_of('ranger', 'adam')),
  'optimizer.learning_rate': Field(
    1e-4, STYLEGAN2['optimizer.learning_rate'].meaning, NOT_NEGATIVE
  ),
  **{
    f'loss.{name}': Field(weight, meaning, NOT_NEGATIVE)
    for name, (weight, meaning) in _TERMS.items()
  },
}
