"""Verbs that train."""

import argparse
import logging
import pathlib

from step_jax import config as config_lib
from step_jax import files, methods
from step_jax import main as main_lib
from step_jax.cli import arguments
from step_jax.errors import ConfigError, WeightsError

log = logging.getLogger(__name__)


def add_quickstart(verbs, name: str) -> None:
  """Adds `quickstart`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _quickstart,
    'train and use a method on synthetic images, in minutes on a laptop CPU',
    'Trains all stages of a method on built-in synthetic images with narrow networks, evaluates, '
    'translates, and writes a report.',
  )
  verb.add_argument(
    '--workdir',
    type=arguments.path,
    default=pathlib.Path('runs/quickstart'),
    help='folder of the run (default: runs/quickstart)',
  )
  shown = [method.name for method in methods.METHODS.values() if method.quickstart]
  verb.add_argument(
    '--method', choices=shown, default='step', help='method to train (default: step, which is StEP)'
  )


def _quickstart(args) -> None:
  from step_jax import quickstart

  quickstart.run(args.workdir, args.method)


def add_train(verbs, name: str) -> None:
  """Adds `train`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _train,
    'train a stage, or resume it',
    'Trains one stage of a run. The first stage of a run needs --data. Later stages inherit the '
    'settings of data, feature network and networks from the stage before, unless you set them. '
    'Set any field of docs/config.md with, for example, --config.optimizer.generator_lr=5e-4. '
    'Re-run an interrupted command to resume it.',
  )
  stages = (
    f'{", ".join(stage.name for stage in method.stages)} ({method.title.partition(":")[0]})'
    for method in methods.METHODS.values()
  )
  verb.add_argument(
    'stage',
    choices=tuple(methods.STAGES),
    metavar='STAGE',
    help=f'stage to train, in this order: {"; ".join(stages)}',
  )
  arguments.add_workdir(verb)
  names = ', '.join(config_lib.DATASETS)
  verb.add_argument(
    '--data',
    default='',
    help='folder of images, prepared or not; or NAME of a known data set; or NAME=FOLDER if it is '
    f'in another folder. Known data sets: {names}',
  )
  verb.add_argument(
    '--preset',
    default='',
    metavar='NAME',
    help='settings of the method, or of a known data set. Presets of the methods: '
    + '; '.join(
      f'{method.name}: {", ".join(method.presets)}'
      for method in methods.METHODS.values()
      if method.presets
    ),
  )
  verb.add_argument(
    '--size',
    type=arguments.positive,
    default=0,
    help='scale the shorter side of images to this many px, and train on squares of this size '
    '(default: no scaling, squares of 256 px)',
  )
  verb.add_argument(
    '--features',
    default='',
    help='feature network for style distances and the perceptual loss: '
    f'{", ".join(config_lib.FEATURES)}',
  )
  verb.add_argument(
    '--weights', default='', help='file with the weights of the feature network, or: random'
  )
  verb.add_argument('--kimg', type=arguments.amount, help='training length in thousands of images')
  verb.add_argument(
    '--wandb', default='', metavar='PROJECT', help='also send metrics to Weights & Biases'
  )
  main_lib.add_change_config(verb)
  verb.set_defaults(takes_fields=True)


def _train(args) -> None:
  config = train_config(args)
  main_lib.set_fields(config, args.fields)
  folder = methods.train(config, args.workdir, args.change_config)
  print(f'{folder}: trained')


def train_config(args: argparse.Namespace) -> config_lib.ConfigDict:
  """The configuration of `step-jax train`, without fields set by `--config.…`.

  The settings of the stage that this one starts from come first, then the options. If neither
  these nor a preset select a feature network, and the default one has no weights in the store, the
  bundled one is used.

  Raises:
    ConfigError: no such data set or preset; or neither data nor a stage before that names them.
  """
  source = config_lib.Source.parse(args.data)
  name, preset = source.name, args.preset
  method, _ = methods.of_stage(args.stage)
  if preset:
    config_lib.choose({**method.presets, **config_lib.DATASETS}, preset, '--preset')
  if preset in config_lib.DATASETS:
    name, preset = preset, ''
  options = [name]
  options += [f'preset={preset}'] if preset else []
  options += [f'size={args.size}'] if args.size else []
  options += [f'features={args.features}'] if args.features else []
  config = config_lib.load(f'{config_lib.stage_file(args.stage)}:{",".join(options)}')
  set_by_hand = main_lib.split_fields(args.fields)
  init_from = set_by_hand.get('init_from', config.get('init_from', ''))
  before = files.join(args.workdir, init_from)
  # A preset is a published recipe: with another network it would be another one.
  chosen = preset or args.features or args.weights
  chosen = chosen or any(it.startswith('features.') for it in set_by_hand)
  if init_from and (before / config_lib.FILE).is_file():
    continued = config_lib.read(before)
    config = config_lib.following(args.stage, continued, ','.join(options))
    chosen = chosen or 'features' in continued
  if args.data:
    config.data.path = source.path or config_lib.DATASETS[source.name]['path']
  if not config.data.path:
    raise ConfigError('--data is missing: pass a folder of images, or swatches')
  if 'features' in config and not chosen and (net := _instead_of(config.features.net)):
    return train_config(argparse.Namespace(**{**vars(args), 'features': net}))
  if args.weights:
    config_lib.set_field(config, 'features.weights', args.weights)
  if args.wandb:
    config_lib.set_field(config, 'wandb', args.wandb)
  if args.kimg is not None:
    config_lib.set_kimg(config, args.kimg)
  return config


def _instead_of(net: str) -> str:
  """The bundled feature net, if there are no weights of `net`; else an empty text."""
  from step_jax.weights import store

  try:
    store.find(net)
  except WeightsError:
    log.warning(
      '%s is not in the store (step-jax weights get %s): using the bundled %s',
      *(net, net, store.BUNDLED_NET),
    )
    return store.BUNDLED_NET
  return ''


def add_reproduce(verbs, name: str) -> None:
  """Adds `reproduce`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _reproduce,
    'reproduce a table of the paper: train, score and print every row',
    'Trains every row of a table on the same images for the same number of steps, scores all rows '
    'with the same protocols, and writes table.md, table.html, table.json (with differences of all '
    'pairs of rows) and gallery.png to the work directory. Stages shared by rows are trained once. '
    'Re-run an interrupted command to resume it. Fields (--config.optimizer.generator_lr=5e-3) are '
    'set in every stage that has them.',
  )
  verb.add_argument('table', help='reconstruction, ablation, diversity or generalisation')
  arguments.add_workdir(verb)
  verb.add_argument(
    '--data', required=True, help='data set: FOLDER, NAME=FOLDER, or NAME of a known set'
  )
  verb.add_argument(
    '--related', default='', help='data set related to --data, for the table generalisation'
  )
  verb.add_argument(
    '--unrelated',
    default='swatches',
    help='data set unrelated to --data, for the table generalisation (default: swatches)',
  )
  verb.add_argument(
    '--size',
    type=arguments.not_negative,
    default=64,
    help='train on squares of this many px (default: 64)',
  )
  verb.add_argument('--features', default='vgg16', help='feature network (default: vgg16)')
  verb.add_argument(
    '--weights', default='', help='file with the weights of the feature network, or: random'
  )
  verb.add_argument(
    '--kimg',
    type=arguments.amount,
    default=8.0,
    help='training length of each row in thousands of images (default: 8)',
  )
  verb.add_argument(
    '--pretrain-kimg',
    type=arguments.amount,
    default=0.0,
    help='length of pre-training in thousands of triplets (default: as --kimg)',
  )
  verb.add_argument(
    '--seeds', type=arguments.positive, default=3, help='number of seeds to train (default: 3)'
  )
  verb.add_argument(
    '--rows', nargs='+', default=(), metavar='PRESET', help='train only the rows of these presets'
  )
  verb.add_argument(
    '--dry-run', action='store_true', help='only print what would be trained and how long it takes'
  )
  verb.set_defaults(takes_fields=True)


def _reproduce(args) -> None:
  from step_jax import reproduce

  sources = {'target': args.data, 'related': args.related, 'unrelated': args.unrelated}
  settings = reproduce.Settings(
    sources={role: reproduce.Source.parse(text) for role, text in sources.items() if text},
    size=args.size,
    features=args.features,
    weights=args.weights,
    kimg=args.kimg,
    pretrain_kimg=args.pretrain_kimg or args.kimg,
    seeds=args.seeds,
    fields=main_lib.split_fields(args.fields),
  )
  make = reproduce.plan if args.dry_run else reproduce.reproduce
  print(make(args.table, settings, args.workdir, args.rows))
