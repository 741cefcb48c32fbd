"""What the fields of a configuration mean, and which values those with a choice may have.

The one place for both: `config.validate` checks the choices, `docs/config.md` shows the meanings.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration.

  Attributes:
    meaning: what it does, in what unit.
    choices: the values that it may have, where these can be listed.
  """

  meaning: str
  choices: tuple[str, ...] = ()


# Groups in the order in which they are explained; the empty name stands for fields of no group.
GROUPS = {
  '': 'The run',
  'data': 'Pictures',
  'features': 'The feature net',
  'mining': 'Triplets',
  'model': 'Networks',
  'loss': 'Loss weights',
  'optimizer': 'Optimisers',
  'schedule': 'Length',
  'imle': 'The mapper',
  'every': 'Intervals',
}

# What a group has to say beyond its fields.
NOTES = {
  'loss': 'A term exists exactly when its weight is above zero. For pairs `a` and `b` with styles '
  '`z_a` and `z_b`, direct pictures are `G(a, z_a)`, swapped ones `G(a, z_b)`, cyclic ones '
  '`G(a, E(G(b, z_a)))`, random ones `G(a, z)` with `z` drawn from N(0, I).',
}

FIELDS = {
  'arg': Field(
    'argument that the configuration file was given: data set, and `size`, `features`, `preset`'
  ),
  'stage': Field('name of the stage, and of its folder in the work directory'),
  'method': Field('what the stage trains; see [extending.md](extending.md)'),
  'init_from': Field(
    'stage whose networks this one starts from: a name in the same work directory, or a path; '
    'empty: from scratch'
  ),
  'train_encoder': Field('whether the style encoder is trained along with the generator'),
  'seed': Field('all that is random derives from it and the number of the step'),
  'dtype': Field(
    'compute type of the networks; parameters and losses are float32', ('float32', 'bfloat16')
  ),
  'remat': Field(
    'whether blocks compute their activations again in the backward pass: less memory, more time'
  ),
  'fsdp': Field(
    'whether parameters, averages and optimisers are split over the devices, not copied: less '
    'memory on each for big networks, at the price of gathering them in every step'
  ),
  'profile': Field(
    "first and last step of a `jax.profiler` trace, which is written to `profile/` in the stage's "
    'folder; none: no trace'
  ),
  'batch_size': Field('pictures a step over all devices (codes, for the mapper)'),
  'ema_decay': Field('of the moving averages; rises to this over the first steps'),
  'best_metric': Field(
    'validation score, lower is better, by which the best checkpoint is kept beside the latest'
  ),
  'eval_pictures': Field(
    'validation pictures that are scored during training; `step-jax evaluate` takes all'
  ),
  'data.path': Field('folder of pictures, prepared or not; or `swatches`'),
  'data.layout': Field(
    '`auto`, `side_by_side`, `two_folders` or `unpaired`; see [data.md](data.md)'
  ),
  'data.direction': Field('which picture of a pair is the source', ('AtoB', 'BtoA')),
  'data.val_fraction': Field(
    'part of the pictures that is held out where there is no `val` folder'
  ),
  'data.resize': Field(
    'pictures are scaled so that the shorter side has so many px; 0: not at all'
  ),
  'data.crop': Field('height and width of training crops, px; multiples of 8 for the generator'),
  'data.eval_crop': Field('height and width of the middle crop for validation, px; 0, 0: whole'),
  'data.rescale': Field(
    'pairs of probability and factor: so often a pair is enlarged by that much'
  ),
  'data.flip': Field('whether half of the pairs are mirrored left to right'),
  'data.scene': Field(
    'regular expression whose first group, in the name of a picture, is its scene; positives of '
    'triplets then come from other scenes'
  ),
  'data.unreadable': Field('what to do about a record that cannot be read', ('stop', 'skip')),
  'features.net': Field('frozen net behind style distance and perceptual loss'),
  'features.taps': Field('its layers that are looked at'),
  'features.tap_weights': Field('how much each tap counts in the perceptual loss'),
  'features.weights': Field(
    'file of its weights; empty: the one in the store (`step-jax weights get`); `random`: untrained'
  ),
  'mining.num_nearest': Field('positives are drawn from so many of the nearest in style'),
  'mining.num_farthest': Field('negatives are drawn from so many of the farthest'),
  'mining.projection': Field(
    'entries that style vectors are reduced to, for very large sets; 0: whole vectors'
  ),
  'model.z_dim': Field('length of a style code'),
  'model.encoder_width': Field('channels of the first layer of the style encoder'),
  'model.generator_width': Field('channels of the first layer of the generator'),
  'model.discriminator_width': Field('channels of the first layer of each discriminator'),
  'model.num_scales': Field('scales at which a discriminator judges, each half the one before'),
  'model.pixel_norm': Field('whether pixel norm follows each block of the style encoder'),
  'model.skip': Field("whether the decoder also reads the content encoder's maps"),
  'model.code_everywhere': Field('whether every block of the decoder reads the code, or the first'),
  'model.variational': Field(
    "whether training draws codes around the encoder's mean; else their noise is fixed at one"
  ),
  'model.mapper_hidden': Field('widths of the hidden layers of the mapper'),
  'loss.triplet': Field('hinge on squared distances of codes'),
  'loss.margin': Field('of that hinge, not a weight: a negative must be farther by so much'),
  'loss.z_l2': Field('mean square of the codes'),
  'loss.recon_perceptual': Field('perceptual distance of direct pictures to their targets'),
  'loss.recon_l1': Field('mean absolute difference of the same, in [-1, 1]'),
  'loss.cycle_perceptual': Field('as `recon_perceptual`, of cyclic pictures'),
  'loss.cycle_l1': Field('as `recon_l1`, of cyclic pictures'),
  'loss.gan': Field('how much the generator heeds the discriminators'),
  'loss.d_direct': Field('how much the discriminator judges direct pictures'),
  'loss.d_cycle': Field('… cyclic pictures'),
  'loss.d_swap': Field('… swapped pictures'),
  'loss.d_random': Field('… random pictures'),
  'loss.d2_random': Field('the same by a discriminator of their own'),
  'loss.z_kl': Field('KL divergence of codes from N(0, I), summed over the batch'),
  'loss.z_recon': Field('mean absolute error of codes that are read back from swapped pictures'),
  'loss.z_random_recon': Field('… from random pictures'),
  'optimizer.encoder_lr': Field('learning rate of the style encoder in pre-training'),
  'optimizer.generator_lr': Field(
    'of the generator, and of the style encoder where that is trained along'
  ),
  'optimizer.discriminator_lr': Field('of the discriminators'),
  'optimizer.latent_lr': Field(
    "of the generator's second optimiser, for the terms of swapped and random codes"
  ),
  'optimizer.mapper_lr': Field('of the mapper'),
  'optimizer.b1': Field("Adam's decay of first moments"),
  'optimizer.b2': Field("Adam's decay of second moments"),
  'schedule.total_kimg': Field('length, in thousands of pictures'),
  'schedule.fixed_kimg': Field('… of which so many at the full learning rate; then it falls'),
  'schedule.epochs': Field('length, in passes over the codes'),
  'imle.max_codes': Field('codes beyond so many are left out, a random choice'),
  'imle.standardize': Field(
    'whether the mapper is trained on codes scaled to mean 0 and standard deviation 1 in every '
    'dimension; false: on the codes as they are, as the original does'
  ),
  'imle.sample_factor': Field('samples that are drawn for each code, to find the nearest'),
  'imle.staleness': Field('epochs for which a pairing is kept'),
  'imle.noise': Field('standard deviation of what is added to paired latents'),
  'imle.decay': Field('the learning rate is multiplied by it'),
  'imle.decay_epochs': Field('… after every so many epochs'),
  'every.log': Field('steps between lines of metrics (epochs, for the mapper)'),
  'every.checkpoint': Field('… between checkpoints'),
  'every.evaluate': Field('… between evaluations'),
}
