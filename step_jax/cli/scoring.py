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
    'score a run on held-out images, or compare runs',
    'Scores a run with every protocol whose weights and data are available, prints a table with '
    '95 % intervals, and writes results.json to the folder of the stage. Results of another split, '
    'data set, seed or checkpoint go to separate files, such as results-split=test.json. Groups '
    'measured earlier are kept. With --compare, prints the results of several runs side by side '
    'where they have the same protocol. docs/protocols.md defines every number.',
  )
  work = verb.add_mutually_exclusive_group(required=True)
  work.add_argument('--workdir', type=arguments.run, help='folder of the run or export to score')
  work.add_argument(
    '--compare', nargs='+', type=arguments.path, metavar='DIR', help='runs, or results files'
  )
  arguments.add_checkpoint(verb)
  verb.add_argument('--data', default='', help='data set (default: that of the run)')
  verb.add_argument('--split', default='val', help='split of the data set (default: val)')
  verb.add_argument(
    '--groups',
    default=','.join(groups),
    help=f'groups of scores to compute, separated by commas (default: {",".join(groups)})',
  )
  verb.add_argument(
    '--seed', type=arguments.not_negative, default=0, help='seed of random choices (default: 0)'
  )
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
    verbs,
    name,
    _report,
    'write an HTML report of a run: curves, scores, galleries',
    'Writes report.html to the work directory: the curves of every stage, the scores of step-jax '
    'evaluate, and images generated from validation images.',
  )
  arguments.add_run(verb)
  _add_out(verb, 'page')


def _report(args) -> None:
  from step_jax import report

  print(report.write(args.workdir, args.out))


def _add_out(verb, what: str) -> None:
  verb.add_argument(
    '--out',
    type=arguments.path,
    help=f'folder for the {what} (default: that of the run); required for exports',
  )


def add_bench(verbs, name: str) -> None:
  """Adds `bench`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _bench,
    'measure speed and memory, alone or against PyTorch',
    'Measures a workload on this machine: seconds, FLOPs, bytes, and the fraction of the peak '
    'speed of the machine, which is measured in the same run. With --vs torch, the same workload '
    'in PyTorch is measured alternately. Default sizes fit on a laptop. See docs/performance.md.',
  )
  names = tuple(bench_settings.benches())
  verb.add_argument('name', choices=names, metavar='NAME', help=', '.join(names))
  verb.add_argument(
    '--vs', default='', choices=bench_settings.PEERS, help='framework to compare with'
  )
  verb.add_argument(
    '--variants',
    default='',
    metavar='TEXT',
    help="only use the framework's variants with this text in their name",
  )
  verb.add_argument('--json', type=arguments.path, metavar='FILE', help='also write results here')
  verb.add_argument('--size', type=arguments.positive, default=0, help='image size in px')
  verb.add_argument('--batch', type=arguments.positive, default=0, help='images per call')
  verb.add_argument(
    '--width', type=arguments.positive, default=0, help='width of the networks (default: 32)'
  )
  verb.add_argument('--dtype', default='', choices=bench_settings.DTYPES, help='compute type')
  verb.add_argument('--repeats', type=arguments.positive, default=0, help='number of rounds')
  verb.add_argument(
    '--count', type=arguments.positive, default=0, help='style vectors to mine, or codes for IMLE'
  )
  verb.add_argument('--features', default='', help='feature network (default: vgg16)')
  verb.add_argument('--data', default='', help='data set for input_pipeline and startup')
  verb.add_argument(
    '--stage',
    default='',
    choices=tuple(methods.STAGES),
    help='stage for translate_step, input_pipeline and startup (default: finetune)',
  )
  verb.add_argument(
    '--memory', action='store_true', help='also measure the peak memory of a training step'
  )
  verb.add_argument(
    '--fsdp', action='store_true', help='shard the state of a training step over the devices'
  )
  verb.add_argument(
    '--no-tf32', action='store_true', help='use full float32 precision, in both frameworks'
  )


def _bench(args) -> None:
  from step_jax.bench import measure, record

  # PyTorch, which shares the device, needs memory too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  fields = (
    'vs', 'size', 'batch', 'width', 'dtype', 'repeats', 'count', 'features', 'data', 'stage',
    'memory', 'variants', 'fsdp',
  )  # fmt: skip
  values = {field: getattr(args, field) for field in fields}
  settings = bench_settings.Settings.of(args.name, **values, tf32=not args.no_tf32)
  report = measure.run(settings)
  print(record.text(report))
  if args.json:
    record.write(args.json, report)
    print(f'{args.json}: written')
