"""Verbs that make data sets."""

from step_jax import files
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
    choices=('auto', 'side_by_side', 'two_folders', 'unpaired'),
    help='A and B as halves of one picture, as two folders, or lone pictures (default: look)',
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


def _prepare(args) -> None:
  from step_jax.data import builder, folders

  found = folders.scan(args.folder, args.layout, args.val_fraction)
  make = builder.prepare_in_bucket if files.in_bucket(args.out) else builder.prepare
  make(found, args.out, args.resize)
  counts = ', '.join(f'{len(examples)} {split}' for split, examples in found.splits.items())
  print(f'{args.out}: {counts} ({found.layout}); use it as --data {args.out}')
