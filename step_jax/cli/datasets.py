"""Verbs that make data sets."""

from step_jax import fields, files
from step_jax.cli import arguments


def add_prepare(verbs, name: str) -> None:
  """Adds `prepare`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _prepare,
    'turn a folder of pictures into a data set, once',
    'Reads every picture once, tells which cannot be used, and writes a data set that trains '
    'faster. Small folders need not be prepared: training does it into a cache on first use.',
  )
  verb.add_argument('folder', help='of pictures (png, jpg, webp): docs/data.md shows the layouts')
  verb.add_argument('--out', required=True, type=arguments.path, help='folder to make')
  verb.add_argument(
    '--layout',
    default='auto',
    choices=fields.LAYOUTS,
    help='A and B as halves of one picture, as two folders, images with label maps, or lone '
    'pictures (default: look)',
  )
  verb.add_argument(
    '--resize', type=arguments.not_negative, default=0, help='scale the shorter side to so many px'
  )
  verb.add_argument(
    '--val-fraction',
    type=arguments.fraction,
    default=0.1,
    help='held out where there is no val folder',
  )
  verb.add_argument(
    '--palette',
    default='',
    help='how label maps show their classes, see docs/data.md; default: index where there is a '
    'folder labels/ beside images/, else label maps are left out',
  )
  verb.add_argument(
    '--direction',
    default='AtoB',
    choices=('AtoB', 'BtoA'),
    help='of pairs without label files: --palette is that of A, or of B (default: AtoB)',
  )


def _prepare(args) -> None:
  from step_jax.data import builder, folders
  from step_jax.data.labels import Labels

  given = args.folder, args.layout, args.val_fraction
  found = folders.scan(*given, Labels(args.palette, side=args.direction[0]))
  if found.layout == 'images_labels' and not args.palette:
    found = folders.scan(*given, Labels('index'))
  make = builder.prepare_in_bucket if files.in_bucket(args.out) else builder.prepare
  make(found, args.out, args.resize)
  counts = ', '.join(f'{len(examples)} {split}' for split, examples in found.splits.items())
  print(f'{args.out}: {counts} ({found.layout}); use it as --data {args.out}')
