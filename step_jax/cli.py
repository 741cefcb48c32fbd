"""`step-jax VERB`: everything that a run needs, from pictures to a report."""

import argparse
from collections.abc import Callable, Sequence
import logging
import math
import os
import pathlib
import sys
import textwrap

from step_jax import bench, demo, methods
from step_jax import config as config_lib
from step_jax import files as files_lib
from step_jax import main as main_lib
from step_jax.errors import ConfigError, UserError
from step_jax.evaluate import protocols

log = logging.getLogger('step_jax.cli')

_WIDTH = 100

_DESCRIPTION = """\
Multi-modal image-to-image translation: one input, many plausible outputs, steered by a style.

A run has four stages, each started by one command on the same work directory:
  step-jax train pretrain  --data MY_PICTURES --workdir runs/mine
  step-jax train translate --workdir runs/mine
  step-jax train finetune  --workdir runs/mine
  step-jax train mapper    --workdir runs/mine
then
  step-jax evaluate  --workdir runs/mine
  step-jax translate INPUT.png --style STYLE.png --workdir runs/mine --out out
  step-jax report    --workdir runs/mine
  step-jax demo      --workdir runs/mine

A command that was interrupted goes on where it stopped when it is given again.
To see all of it work on synthetic pictures: step-jax quickstart"""


def main(argv: Sequence[str] | None = None) -> int:
  """The console script; returns the exit status."""
  main_lib.setup_terminal()
  parser = _parser()
  args, rest = parser.parse_known_args(argv)
  if rest and not getattr(args, 'takes_fields', False):
    parser.error(f'unknown argument {rest[0]!r} of {args.verb}')
  args.fields = rest
  return main_lib.guarded(lambda: args.run(args))


class _Parser(argparse.ArgumentParser):
  """A parser whose errors are one line, as all others of this program."""

  def error(self, message):
    self.exit(main_lib.EXIT_USER_ERROR, f'step-jax: {message}: see {self.prog} --help\n')


def _parser() -> argparse.ArgumentParser:
  parser = _Parser(
    prog='step-jax', description=_DESCRIPTION, formatter_class=_Formatter, allow_abbrev=False
  )
  verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
  for add in (
    _add_quickstart,
    _add_prepare,
    _add_train,
    _add_evaluate,
    _add_translate,
    _add_demo,
    _add_report,
    _add_reproduce,
    _add_weights,
    _add_bench,
    _add_export,
    _add_doctor,
  ):
    add(verbs)
  return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
  def __init__(self, prog):
    super().__init__(prog, max_help_position=28, width=_WIDTH)


def _verb(verbs, name: str, run, help_: str, description: str = '') -> argparse.ArgumentParser:
  verb = verbs.add_parser(
    name,
    help=help_,
    description=textwrap.fill(description or help_, _WIDTH),
    formatter_class=_Formatter,
    allow_abbrev=False,
  )
  verb.set_defaults(run=run)
  return verb


def _path(text: str) -> files_lib.Path:
  try:
    return files_lib.path(text)
  except UserError as error:
    raise argparse.ArgumentTypeError(error) from None


def _number(
  kind: Callable[[str], float], wanted: str, fits: Callable[[float], bool]
) -> Callable[[str], float]:
  """A type of arguments: numbers of a kind (`int`, `float`) that fit, else an error names both."""

  def parse(text: str) -> float:
    try:
      value = kind(text)
    except ValueError:
      value = math.nan
    if not fits(value):  # No comparison holds of NaN.
      raise argparse.ArgumentTypeError(f'{text!r} is not {wanted}')
    return value

  return parse


_positive = _number(int, 'a whole number of at least 1', lambda value: value >= 1)
_not_negative = _number(int, 'a whole number of at least 0', lambda value: value >= 0)
_amount = _number(float, 'a number above 0', lambda value: 0 < value < math.inf)
_fraction = _number(float, 'a number of at least 0 and below 1', lambda value: 0 <= value < 1)
_port = _number(int, 'a port, 1 to 65535', lambda value: 1 <= value <= 65535)


def _add_workdir(verb: argparse.ArgumentParser) -> None:
  verb.add_argument(
    '--workdir', required=True, type=_path, help='folder of the run, or gs://BUCKET/FOLDER'
  )


def _add_checkpoint(verb: argparse.ArgumentParser) -> None:
  verb.add_argument(
    '--checkpoint', choices=('latest', 'best'), default='latest', help='which to use'
  )


def _add_quickstart(verbs) -> None:
  verb = _verb(
    verbs,
    'quickstart',
    _quickstart,
    'all four stages on synthetic pictures, in minutes on a laptop CPU',
    'Trains all four stages on the built-in synthetic pairs at 64 px with narrow networks, '
    'evaluates, and writes pictures and a report.',
  )
  verb.add_argument(
    '--workdir',
    type=_path,
    default=pathlib.Path('runs/quickstart'),
    help='folder of the run',
  )
  verb.add_argument(
    '--method', choices=tuple(methods.METHODS), default='step', help='which to show (default: step)'
  )


def _quickstart(args) -> None:
  from step_jax import quickstart

  quickstart.run(args.workdir, args.method)


def _add_prepare(verbs) -> None:
  verb = _verb(
    verbs,
    'prepare',
    _prepare,
    'turn a folder of pictures into a data set, once',
    'Reads every picture once, tells which cannot be used, and writes a data set that trains '
    'faster. Small folders need not be prepared: training does it into a cache on first use.',
  )
  verb.add_argument('folder', help='of pictures (png, jpg, webp): docs/data.md shows the layouts')
  verb.add_argument('--out', required=True, type=_path, help='folder to make')
  verb.add_argument(
    '--layout',
    default='auto',
    choices=('auto', 'side_by_side', 'two_folders', 'unpaired'),
    help='A and B as halves of one picture, as two folders, or lone pictures (default: look)',
  )
  verb.add_argument(
    '--resize', type=_not_negative, default=0, help='scale the shorter side to so many px'
  )
  verb.add_argument(
    '--val-fraction', type=_fraction, default=0.1, help='held out where there is no val folder'
  )


def _prepare(args) -> None:
  from step_jax.data import folders, pairs

  found = folders.scan(args.folder, args.layout, args.val_fraction)
  make = pairs.prepare_in_bucket if files_lib.in_bucket(args.out) else pairs.prepare
  make(found, args.out, args.resize)
  counts = ', '.join(f'{len(examples)} {split}' for split, examples in found.splits.items())
  print(f'{args.out}: {counts} ({found.layout}); use it as --data {args.out}')


def _add_train(verbs) -> None:
  verb = _verb(
    verbs,
    'train',
    _train,
    'train a stage, or go on with it',
    'Trains one stage of a run. Later stages take data, feature net and networks from the stage '
    'before, unless told otherwise. Any field of the configuration can be set: '
    '--config.optimizer.generator_lr=5e-4',
  )
  verb.add_argument('stage', choices=tuple(methods.STAGES), help=', '.join(methods.STAGES))
  _add_workdir(verb)
  names = ', '.join(config_lib.DATASETS)
  verb.add_argument(
    '--data',
    default='',
    help='folder of images, prepared or not; or NAME of a known data set; or NAME=FOLDER for one '
    f'that lies elsewhere: {names}',
  )
  verb.add_argument(
    '--preset',
    default='',
    metavar='NAME',
    help='settings of the method, or of a known data set; of methods: '
    + '; '.join(
      f'{method.name}: {", ".join(method.presets)}'
      for method in methods.METHODS.values()
      if method.presets
    ),
  )
  verb.add_argument('--size', type=_positive, default=0, help='train on squares of so many px')
  verb.add_argument('--features', default='', help=f'feature net: {", ".join(config_lib.FEATURES)}')
  verb.add_argument('--weights', default='', help="file of the feature net's weights, or: random")
  verb.add_argument('--kimg', type=_amount, help='thousands of pictures to train on')
  main_lib.add_change_config(verb)
  verb.set_defaults(takes_fields=True)


def _train(args) -> None:
  config = train_config(args)
  main_lib.set_fields(config, args.fields)
  from step_jax import methods

  folder = methods.train(config, args.workdir, args.change_config)
  print(f'{folder}: trained')


def train_config(args: argparse.Namespace) -> config_lib.ConfigDict:
  """The configuration of `step-jax train`, without fields set by `--config.…`.

  The settings of the stage that this one starts from come first, then the options.

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
  init_from = main_lib.split_fields(args.fields).get('init_from', config.get('init_from', ''))
  before = files_lib.join(args.workdir, init_from)
  if init_from and (before / config_lib.FILE).is_file():
    config = config_lib.following(args.stage, config_lib.read(before), ','.join(options))
  if args.data:
    config.data.path = source.path or config_lib.DATASETS[source.name]['path']
  if not config.data.path:
    raise ConfigError('--data is missing: give a folder of pictures, or swatches')
  if args.weights:
    config_lib.set_field(config, 'features.weights', args.weights)
  if args.kimg is not None:
    config_lib.set_kimg(config, args.kimg)
  return config


def _add_evaluate(verbs) -> None:
  groups = list(protocols.GROUPS)
  verb = _verb(
    verbs,
    'evaluate',
    _evaluate,
    'score a run on held-out pictures, or compare runs',
    'Scores a run with every protocol whose weights and data are there, prints a table with 95 % '
    'intervals, and writes results.json to the stage; results of another split, data set, seed or '
    'checkpoint go to files of their own, as results-split=test.json. Groups measured earlier are '
    'kept. With --compare, prints the results of several runs side by side, as far as they are of '
    'the same protocol. docs/protocols.md says what each number is.',
  )
  work = verb.add_mutually_exclusive_group(required=True)
  work.add_argument('--workdir', type=_path, help='folder of the run to score')
  work.add_argument(
    '--compare',
    nargs='+',
    type=_path,
    metavar='DIR',
    help='folders of runs with results, or files of results',
  )
  _add_checkpoint(verb)
  verb.add_argument('--data', default='', help='another data set than the one of the run')
  verb.add_argument('--split', default='val', help='of the data set')
  verb.add_argument(
    '--groups', default=','.join(groups), help=f'of scores, some of {", ".join(groups)}'
  )
  verb.add_argument('--seed', type=_not_negative, default=0, help='of everything drawn')


def _evaluate(args) -> None:
  if args.compare:
    from step_jax.evaluate import compare

    print(compare.compare(args.compare))
    return
  from step_jax.evaluate import results

  found = results.evaluate(
    args.workdir, args.split, args.checkpoint, args.data, args.groups.split(','), args.seed
  )
  print(results.table(found))


def _add_translate(verbs) -> None:
  verb = _verb(
    verbs,
    'translate',
    _translate,
    'translate pictures in given, drawn or blended styles',
    'Writes one PNG per translation, named after its input, and grid.png with all of them. '
    'Files of these names in --out are replaced, but never an input.',
  )
  verb.add_argument('inputs', nargs='+', help='source pictures, or folders of them')
  _add_workdir(verb)
  _add_checkpoint(verb)
  verb.add_argument('--out', required=True, type=_path, help='folder for the results')
  style = verb.add_mutually_exclusive_group()
  style.add_argument('--style', nargs='+', metavar='IMAGE', help='pictures whose style to use')
  style.add_argument('--interpolate', nargs=2, metavar=('A', 'B'), help='from one style to another')
  style.add_argument('--sample', type=_positive, metavar='N', help='draw N new styles')
  verb.add_argument('--steps', type=_positive, default=8, help='of an interpolation')
  verb.add_argument('--seed', type=_not_negative, default=0, help='of drawn styles')
  for name, methods_of in _options().items():
    option = methods_of[0][1]
    names = ', '.join(method for method, _ in methods_of)
    verb.add_argument(
      f'--{name}',
      # What is not given must not reach methods that have no such option.
      default=argparse.SUPPRESS,
      type=option.kind,
      choices=option.choices or None,
      nargs=option.nargs,
      metavar=option.metavar,
      help=f'{names}: {option.help}',
    )
  verb.add_argument(
    '--side-by-side',
    action='store_true',
    help='inputs and styles are A|B pictures: take the source half, and the target half for styles',
  )


def _options() -> dict[str, list[tuple[str, methods.Option]]]:
  """Options of `translate` by name, with the methods that have each."""
  found: dict[str, list] = {}
  for method in methods.METHODS.values():
    for option in method.options:
      found.setdefault(option.name, []).append((method.name, option))
  return found


def _translate(args) -> None:
  from step_jax.infer import files

  names = [name.replace('-', '_') for name in _options()]

  written = files.translate(
    args.workdir,
    args.inputs,
    args.out,
    styles=args.style,
    interpolate=args.interpolate,
    sample=args.sample,
    steps=args.steps,
    seed=args.seed,
    side_by_side=args.side_by_side,
    which=args.checkpoint,
    options={name: getattr(args, name) for name in names if hasattr(args, name)},
  )
  print(f'{args.out}: {len(written)} pictures and grid.png')


def _add_demo(verbs) -> None:
  verb = _verb(
    verbs,
    'demo',
    _demo,
    'a local page to try a trained run on: inputs, styles, sliders, a map of styles',
    'Serves a page, to this machine alone unless told otherwise. It needs the extra demo: pip '
    "install 'step_jax[demo]'. docs/demo.md shows how to use it on a remote machine.",
  )
  _add_workdir(verb)
  _add_checkpoint(verb)
  verb.add_argument('--host', default=demo.HOST, help=f'to bind to (default: {demo.HOST})')
  verb.add_argument('--port', type=_port, default=demo.PORT, help=f'(default: {demo.PORT})')


def _demo(args) -> None:
  demo.serve(args.workdir, args.host, args.port, args.checkpoint)


def _add_report(verbs) -> None:
  verb = _verb(
    verbs, 'report', _report, 'one HTML page of a run: curves, scores, galleries; opens offline'
  )
  _add_workdir(verb)


def _report(args) -> None:
  from step_jax import report

  print(report.write(args.workdir))


def _add_reproduce(verbs) -> None:
  verb = _verb(
    verbs,
    'reproduce',
    _reproduce,
    "one of the paper's tables: trains, scores and prints every row",
    'Trains every row of a table from the same pictures for as many steps, scores all by the same '
    'protocols, and writes table.md, table.html and gallery.png to the work directory. What rows '
    'share is made once; given again, the command goes on where it stopped. Fields that are set '
    '(--config.optimizer.generator_lr=5e-3) are set in every stage that has them.',
  )
  verb.add_argument('table', help='reconstruction, ablation, diversity or generalisation')
  _add_workdir(verb)
  verb.add_argument('--data', required=True, help='pictures: PATH, PRESET=PATH, or a known set')
  verb.add_argument('--related', default='', help='the same, for generalisation')
  verb.add_argument('--unrelated', default='swatches', help='the same, for generalisation')
  verb.add_argument('--size', type=_not_negative, default=64, help='train on squares of so many px')
  verb.add_argument('--features', default='vgg16', help='feature net')
  verb.add_argument('--weights', default='', help="file of the feature net's weights, or: random")
  verb.add_argument('--kimg', type=_amount, default=8.0, help='thousands of pictures a row')
  verb.add_argument(
    '--pretrain-kimg', type=_amount, default=0.0, help='of triplets (default: as --kimg)'
  )
  verb.add_argument('--seeds', type=_positive, default=3, help='how often everything is trained')
  verb.add_argument('--rows', nargs='+', default=(), help='some rows only, by preset')
  verb.add_argument('--dry-run', action='store_true', help='print the plan and how long it takes')
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


def _add_weights(verbs) -> None:
  verb = _verb(
    verbs,
    'weights',
    _weights,
    'weights of feature nets: get, convert, list; import-step',
    'The perceptual loss and style mining want a feature net that was trained on ImageNet. '
    'Its weights are kept in $STEP_JAX_WEIGHTS, or ~/.cache/step_jax/weights.',
  )
  actions = verb.add_subparsers(dest='action', required=True, metavar='ACTION')
  get = actions.add_parser('get', help='download (vgg16, squeezenet1_1, alexnet, lpips_alex, …)')
  get.add_argument('name', help='of the net, or of the LPIPS heads')
  get.add_argument('--url', action='append', help='a mirror; …#sha256=HEX pins its content')
  convert = actions.add_parser(
    'convert', help='read vgg16.npy, Keras .h5, torchvision .pth, .safetensors or .npz'
  )
  convert.add_argument('file', type=pathlib.Path)
  convert.add_argument('--name', default='', help='of the net, where the file does not tell')
  convert.add_argument('--out', type=pathlib.Path, help='default: into the store')
  actions.add_parser('list', help='what the store holds')
  step = actions.add_parser(
    'import-step', help='a run from a TensorFlow checkpoint of the original StEP'
  )
  step.add_argument('checkpoint', type=pathlib.Path, help='its prefix, as model.ckpt-1000')
  _add_workdir(step)
  step.add_argument('--data', default='', help='pictures, for evaluation and further training')
  step.add_argument('--preset', default='', help='settings of a known set')
  step.add_argument('--codes', type=pathlib.Path, help='zs_train.npy, for a mapper')


def _weights(args) -> None:
  from step_jax import places, weights

  if args.action == 'get':
    print(weights.get(args.name, args.url))
  elif args.action == 'convert':
    print(weights.convert(args.file, args.name or None, args.out))
  elif args.action == 'import-step':
    from step_jax.methods.step.original import import_step

    print(
      import_step.import_step(args.checkpoint, args.workdir, args.data, args.preset, args.codes)
    )
  else:
    files = sorted(places.weights().glob('*.safetensors'))
    print('\n'.join(map(str, files)) or f'{places.weights()}: holds no weights yet')


def _add_bench(verbs) -> None:
  verb = _verb(
    verbs,
    'bench',
    _bench,
    'measure speed and memory, alone or in turn with PyTorch',
    'Measures one piece of work on this machine: seconds, FLOPs, bytes, and the share of what the '
    'machine can do, measured in the same run. With --vs torch the same work in PyTorch takes '
    'turns with it. Sizes left out are small enough for a laptop. docs/performance.md says more.',
  )
  verb.add_argument('name', choices=bench.NAMES, metavar='NAME', help=', '.join(bench.NAMES))
  verb.add_argument('--vs', default='', choices=bench.PEERS, help='the peer to compare with')
  verb.add_argument(
    '--variants',
    default='',
    metavar='TEXT',
    help="try only those of the peer's with this in their name",
  )
  verb.add_argument('--json', type=pathlib.Path, metavar='FILE', help='write the record here too')
  verb.add_argument('--size', type=_positive, default=0, help='side of the pictures')
  verb.add_argument('--batch', type=_positive, default=0, help='pictures a call')
  verb.add_argument('--width', type=_positive, default=0, help='of the networks (default: 32)')
  verb.add_argument('--dtype', default='', choices=bench.DTYPES, help='compute type')
  verb.add_argument('--repeats', type=_positive, default=0, help='rounds')
  verb.add_argument(
    '--count', type=_positive, default=0, help='style vectors to mine, or codes of IMLE'
  )
  verb.add_argument('--features', default='', help='feature net (default: vgg16)')
  verb.add_argument('--data', default='', help='pictures for input_pipeline and startup')
  verb.add_argument(
    '--stage',
    default='',
    choices=bench.STAGES,
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
  # PyTorch, which shares the device, needs memory too.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  fields = (
    'vs', 'size', 'batch', 'width', 'dtype', 'repeats', 'count', 'features', 'data', 'stage',
    'memory', 'variants', 'fsdp',
  )  # fmt: skip
  given = {field: getattr(args, field) for field in fields}
  settings = bench.Settings.of(args.name, **given, tf32=not args.no_tf32)
  record = bench.run(settings)
  print(bench.text(record))
  if args.json:
    bench.write(args.json, record)
    print(f'{args.json}: written')


def _add_export(verbs) -> None:
  verb = _verb(
    verbs,
    'export',
    _export,
    'a trained run as files that run without step_jax',
    'Writes StableHLO for CPU, CUDA and TPU, for any batch and size, with the parameters, a '
    'manifest, a README and an example that needs JAX alone. docs/export.md says more.',
  )
  _add_workdir(verb)
  _add_checkpoint(verb)
  verb.add_argument('--out', type=pathlib.Path, help='folder to make (default: WORKDIR/export)')
  verb.add_argument(
    '--onnx', type=_positive, default=0, metavar='PX', help='ONNX too, for squares of so many px'
  )


def _export(args) -> None:
  from step_jax import export

  run = methods.load(args.workdir, args.checkpoint)
  print(export.write(run, args.out or args.workdir / 'export', args.onnx))


def _add_doctor(verbs) -> None:
  verb = _verb(
    verbs,
    'doctor',
    _doctor,
    'what is installed, found and wrong on this machine',
    'Prints versions, devices, memory, weights and folders, then what is wrong and what to do '
    'about it. The exit status is 1 when something is wrong, else 0.',
  )
  verb.add_argument('--workdir', type=pathlib.Path, help='folder whose disk is looked at too')


def _doctor(args) -> int:
  from step_jax import doctor

  text, healthy = doctor.report(args.workdir)
  print(text)
  return 0 if healthy else 1


if __name__ == '__main__':
  sys.exit(main())
