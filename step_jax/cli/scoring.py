"""Verbs that measure: scores and reports of runs, speed of the machine."""

import os

from step_jax import methods
from step_jax.bench import settings as bench_settings
from step_jax.cli import arguments
from step_jax.evaluate import protocols


def add_evaluate(verbs, name: str) -> None:
  """Adds `evaluate`."""
  groups = list(protocols.GROUPS)
  verb = arguments.add_verb(
    verbs,
    name,
    _evaluate,
    'score a run on held-out pictures, or compare runs',
    'Scores a run with every protocol whose weights and data are there, prints a table with 95 % '
    'intervals, and writes results.json to the stage; results of another split, data set, seed or '
    'checkpoint go to files of their own, as results-split=test.json. Groups measured earlier are '
    'kept. With --compare, prints the results of several runs side by side, as far as they are of '
    'the same protocol. docs/protocols.md says what each number is.',
  )
  work = verb.add_mutually_exclusive_group(required=True)
  work.add_argument('--workdir', type=arguments.run, help='folder of the run or export to score')
  work.add_argument(
    '--compare',
    nargs='+',
    type=arguments.path,
    metavar='DIR',
    help='folders of runs with results, or files of results',
  )
  arguments.add_checkpoint(verb)
  verb.add_argument('--data', default='', help='another data set than the one of the run')
  verb.add_argument('--split', default='val', help='of the data set')
  verb.add_argument(
    '--groups', default=','.join(groups), help=f'of scores, some of {", ".join(groups)}'
  )
  verb.add_argument('--seed', type=arguments.not_negative, default=0, help='of everything drawn')
  _add_out(verb, 'results')


def _evaluate(args) -> None:
  if args.compare:
    from step_jax.evaluate import compare

    print(compare.compare(args.compare))
    return
  from step_jax.evaluate import results

  groups = args.groups.split(',')
  scores = results.evaluate(
    args.workdir, args.split, args.checkpoint, args.data, groups, args.seed, args.out
  )
  print(results.table(scores))


def add_report(verbs, name: str) -> None:
  """Adds `report`."""
  verb = arguments.add_verb(
    verbs, name, _report, 'one HTML page of a run: curves, scores, galleries; opens offline'
  )
  arguments.add_run(verb)
  _add_out(verb, 'page')


def _report(args) -> None:
  from step_jax import report

  print(report.write(args.workdir, args.out))


def _add_out(verb, what: str) -> None:
  verb.add_argument('--out', type=arguments.path, help=f'folder for the {what}; exports need it')


def add_bench(verbs, name: str) -> None:
  """Adds `bench`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _bench,
    'measure speed and memory, alone or in turn with PyTorch',
    'Measures one piece of work on this machine: seconds, FLOPs, bytes, and the share of what the '
    'machine can do, measured in the same run. With --vs torch the same work in PyTorch takes '
    'turns with it. Sizes left out are small enough for a laptop. docs/performance.md says more.',
  )
  names = tuple(bench_settings.benches())
  verb.add_argument('name', choices=names, metavar='NAME', help=', '.join(names))
  verb.add_argument(
    '--vs', default='', choices=bench_settings.PEERS, help='the peer to compare with'
  )
  verb.add_argument(
    '--variants',
    default='',
    metavar='TEXT',
    help="try only those of the peer's with this in their name",
  )
  verb.add_argument('--json', type=arguments.path, metavar='FILE', help='write the record here too')
  verb.add_argument('--size', type=arguments.positive, default=0, help='side of the pictures')
  verb.add_argument('--batch', type=arguments.positive, default=0, help='pictures a call')
  verb.add_argument(
    '--width', type=arguments.positive, default=0, help='of the networks (default: 32)'
  )
  verb.add_argument('--dtype', default='', choices=bench_settings.DTYPES, help='compute type')
  verb.add_argument('--repeats', type=arguments.positive, default=0, help='rounds')
  verb.add_argument(
    '--count', type=arguments.positive, default=0, help='style vectors to mine, or codes of IMLE'
  )
  verb.add_argument('--features', default='', help='feature net (default: vgg16)')
  verb.add_argument('--data', default='', help='pictures for input_pipeline and startup')
  verb.add_argument(
    '--stage',
    default='',
    choices=tuple(methods.STAGES),
    help='whose step translate_step, input_pipeline and startup run (default: finetune)',
  )
  verb.add_argument(
    '--memory', action='store_true', help='peak memory of a training step too, of each alone'
  )
  verb.add_argument(
    '--fsdp', action='store_true', help='split the state of a training step over the devices'
  )
  verb.add_argument(
    '--no-tf32', action='store_true', help='float32 products in full, on both sides'
  )


def _bench(args) -> None:
  from step_jax.bench import measure, record

  # PyTorch, which shares the device, needs memory too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  fields = (
    'vs', 'size', 'batch', 'width', 'dtype', 'repeats', 'count', 'features', 'data', 'stage',
    'memory', 'variants', 'fsdp',
  )  # fmt: skip
  given = {field: getattr(args, field) for field in fields}
  settings = bench_settings.Settings.of(args.name, **given, tf32=not args.no_tf32)
  report = measure.run(settings)
  print(record.text(report))
  if args.json:
    record.write(args.json, report)
    print(f'{args.json}: written')
