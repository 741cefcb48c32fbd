"""Fields of the configurations of both stages."""

from collections.abc import Callable
import dataclasses

from step_jax.fields import COUNT, NOT_NEGATIVE, SHARED, TEXT, Field, Rule, each, number, one_of

POWER_OF_TWO = 'a power of two'


def power_of_two(least: int, also: tuple[int, ...] = ()) -> Rule:
  """Powers of two from `least`, and the numbers in `also`."""
  accepts: Callable[[int], bool] = lambda size: (
    size in also or (size >= least and not size & (size - 1))
  )
  return Rule(', or '.join([f'{POWER_OF_TWO} from {least}', *map(str, also)]), accepts)


# Fields of the generator. Both stages have them; the second takes their values from the first.
GENERATOR = {
  'model.size': Field(
    0, 'side of the generated images, px; 0: as `data.crop`', power_of_two(8, also=(0,))
  ),
  'model.channel_multiplier': Field(
    2.0,
    "factor on the channels from 64 px on: 2 is StyleGAN2's configuration F, 1 configuration E",
    number('above 0'),
  ),
  'model.max_channels': Field(512, 'maximum number of channels of a level', COUNT),
  'model.style_dim': Field(512, 'length of a style vector', COUNT),
  'model.mapping_depth': Field(8, 'number of layers of the mapping network', COUNT),
}

STYLEGAN2 = GENERATOR | {
  'augment': Field(
    (),
    'differentiable augmentations of the images that the discriminator gets: any of `color`, '
    '`translation`, `cutout`; useful with few images',
    each(str, one_of('color', 'translation', 'cutout'), 'texts', range(4)),
  ),
  'style_mixing': Field(
    0.9, 'probability that the layers of a batch get two styles', number('at least 0', 'at most 1')
  ),
  'path_shrink': Field(2, 'factor by which the batch for path lengths is smaller', COUNT),
  'loss.r1': Field(10.0, 'R1: squared gradient of the discriminator at real images', NOT_NEGATIVE),
  'loss.path': Field(
    2.0, 'squared difference of path lengths from their running mean', NOT_NEGATIVE
  ),
  'interval.r1': Field(16, 'steps between R1 terms', COUNT),
  'interval.path': Field(4, 'steps between path length terms', COUNT),
  'optimizer.learning_rate': Field(0.002, 'learning rate of all networks', NOT_NEGATIVE),
  'optimizer.ema_decay': Field(
    0.5 ** (32 / 10_000),
    'decay rate of the moving average of the generator',
    number('at least 0', 'below 1'),
  ),
}

TASKS = ('translate', 'encode', 'frontalize', 'sketch', 'segmentation', 'super_resolution')
ENCODERS = ('pyramid', 'into_w', 'into_w_plus', 'resnet50_linear')

_TERMS = {
  'l2': (1.0, 'mean squared difference of output and target'),
  'l1': (0.0, 'mean absolute difference of output and target'),
  'lpips': (0.8, 'LPIPS of output and target'),
  'identity': (0.0, 'difference of ArcFace identities; for aligned faces'),
  'moco': (0.0, 'difference of MoCo features; for everything but faces'),
  'l2_crop': (0.0, '`l2` on the inner part of aligned faces, at 256 px'),
  'lpips_crop': (0.0, '`lpips` on the same part'),
  'w_norm': (0.0, 'distance of styles from the mean style'),
  'mixing': (
    0.0,
    'mean absolute difference of the output and the output for styles mixed within the batch; '
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
    'input of the encoder: the source of a pair, or the image itself for single images '
    '(`translate`); the target (`encode`); the target, mirrored at random (`frontalize`); a grey '
    'drawing (`sketch`); a label map (`segmentation`); or the target, reduced and enlarged again '
    '(`super_resolution`)',
    one_of(*TASKS),
  ),
  'train_generator': Field(False, 'whether to train the generator together with the encoder'),
  'start_from_mean': Field(True, 'whether the encoder predicts offsets from the mean style'),
  'body_weights': Field(
    '',
    'file with initial weights of the encoder body: ArcFace IR-SE-50, or a ResNet-50 for the '
    'encoder `resnet50_linear`; empty: train from scratch',
  ),
  'data.factors': Field(
    (1, 2, 4, 8, 16, 32),
    'reduction factors for super-resolution; one is sampled for each image',
    each(int, COUNT, 'integers'),
  ),
  'model.encoder': Field(
    'pyramid',
    'architecture of the encoder: styles from three levels of a pyramid (`pyramid`), one style '
    'for all layers (`into_w`), styles from the last level (`into_w_plus`), or from a ResNet-50 '
    '(`resnet50_linear`)',
    one_of(*ENCODERS),
  ),
  'model.encoder_size': Field(
    256, 'side that images are resized to for the encoder, px', power_of_two(64)
  ),
  'model.body_width': Field(
    64,
    'channels of the first stage of the encoder body; doubled in each stage',
    number('at least 16'),
  ),
  'model.body_depths': Field(
    (3, 4, 14, 3),
    'number of units in each of the four stages of the encoder body',
    each(int, COUNT, 'four integers', (4,)),
  ),
  'model.num_styles': Field(
    0,
    'number of styles that the encoder `resnet50_linear` predicts; 0: one for each layer',
    NOT_NEGATIVE,
  ),
  'features.identity': Field(
    '',
    'file of ArcFace IR-SE-50 for `loss.identity`; empty: the file from `step-jax weights get`',
  ),
  'features.moco': Field(
    '',
    "file of MoCo's ResNet-50 for `loss.moco`; empty: the file from `step-jax weights get`",
  ),
  'optimizer.name': Field('ranger', 'optimizer', one_of('ranger', 'adam')),
  'optimizer.learning_rate': Field(
    1e-4, STYLEGAN2['optimizer.learning_rate'].meaning, NOT_NEGATIVE
  ),
  **{
    f'loss.{name}': Field(weight, meaning, NOT_NEGATIVE)
    for name, (weight, meaning) in _TERMS.items()
  },
}
