"""Verbs that make and get data sets."""

import pathlib
import sys

from step_jax import fields, files
from step_jax.cli import arguments


def add_prepare(verbs, name: str) -> None:
  """Adds `prepare`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _prepare,
    'convert a folder of images to a data set',
    'Reads every image once, reports the first one that cannot be used, and writes a data set that '
    'loads faster. Optional for small folders: training prepares them in a cache on first use.',
  )
  verb.add_argument('folder', help='folder of images (png, jpg, webp); see docs/data.md')
  verb.add_argument('--out', required=True, type=arguments.path, help='output folder')
  verb.add_argument(
    '--layout',
    default='auto',
    choices=fields.LAYOUTS,
    help='A and B as halves of one image or as two folders, images with label maps, or single '
    'images (default: detect the layout)',
  )
  verb.add_argument(
    '--resize',
    type=arguments.not_negative,
    default=0,
    help='scale the shorter side to this many px (default: no scaling)',
  )
  verb.add_argument(
    '--val-fraction',
    type=arguments.fraction,
    default=0.1,
    help='fraction to hold out if there is no val folder (default: 0.1)',
  )
  verb.add_argument(
    '--palette',
    default='',
    help='how label maps encode their classes, see docs/data.md (default: index if there is a '
    'folder labels/ next to images/, else no label maps)',
  )
  verb.add_argument(
    '--direction',
    default='AtoB',
    choices=('AtoB', 'BtoA'),
    help='for pairs without label files: AtoB if --palette is that of A, else BtoA (default: AtoB)',
  )


def _prepare(args) -> None:
  from step_jax.data import builder, folders
  from step_jax.data.labels import Labels

  options = args.folder, args.layout, args.val_fraction
  picture_set = folders.scan(*options, Labels(args.palette, side=args.direction[0]))
  if picture_set.layout == 'images_labels' and not args.palette:
    picture_set = folders.scan(*options, Labels('index'))
  make = builder.prepare_in_bucket if files.in_bucket(args.out) else builder.prepare
  make(picture_set, args.out, args.resize)
  counts = ', '.join(f'{len(examples)} {split}' for split, examples in picture_set.splits.items())
  print(f'{args.out}: {counts} ({picture_set.layout}); use it as --data {args.out}')


def add_data(verbs, name: str) -> None:
  """Adds `data`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _data,
    'get or list published data sets',
    'Downloads a published data set to data/NAME, where `step-jax train --data NAME` looks for it. '
    'Re-run an interrupted download to resume it. docs/data.md describes the sets.',
  )
  actions = verb.add_subparsers(dest='action', required=True, metavar='ACTION')
  get = actions.add_parser('get', help='download a data set (facades, edges2shoes, …; see list)')
  get.add_argument('name', help='name of the data set')
  get.add_argument('--out', type=arguments.path, help='output folder (default: data/NAME)')
  get.add_argument(
    '--url', action='append', help='mirror to download from; …#sha256=HEX sets the required digest'
  )
  get.add_argument(
    '--accept-licence', action='store_true', help='accept the terms of the data set without asking'
  )
  actions.add_parser('list', help='show names, sizes, and which sets are already downloaded')


def _data(args) -> None:
  from step_jax.data import published

  if args.action == 'list':
    print(published.listing())
    return

  def accept(terms: str) -> bool:
    say(terms)
    if args.accept_licence:
      return True
    answer = input('Accept these terms? [y/N] ') if sys.stdin.isatty() else ''
    return answer.strip().lower() in ('y', 'yes')

  def say(line: str) -> None:
    print(line, file=sys.stderr)

  folder = published.get(args.name, args.out, args.url or (), accept, say)
  print(f'{folder}: use it as --data {_source(args.name, folder)}')


def _source(name: str, folder: pathlib.Path) -> str:
  """What `--data` must be for a published set in a folder."""
  from step_jax.data import published

  return name if folder == published.folder_of(name) else f'{name}={folder}'
