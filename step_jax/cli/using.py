"""Verbs that use a trained run."""

from step_jax import demo, methods
from step_jax.cli import arguments
from step_jax.infer import options


def add_translate(verbs, name: str) -> None:
  """Adds `translate`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _translate,
    'translate images in given, sampled or interpolated styles',
    'Writes one PNG per translation, named after its input, and grid.png with all of them. '
    'Existing files of these names in --out are replaced, except inputs. Options whose '
    'description begins with a method (step, psp, superstylenet) work only with its runs.',
  )
  verb.add_argument('inputs', nargs='+', help='source images, or folders of images')
  arguments.add_run(verb)
  arguments.add_checkpoint(verb)
  verb.add_argument('--out', required=True, type=arguments.path, help='output folder')
  style = verb.add_mutually_exclusive_group()
  style.add_argument(
    '--style', nargs='+', metavar='FILE', help='images or codes (.npy) whose style to use'
  )
  style.add_argument(
    '--interpolate',
    nargs=2,
    metavar=('A', 'B'),
    help='interpolate from style A to style B: images or codes (.npy)',
  )
  style.add_argument('--sample', type=arguments.positive, metavar='N', help='sample N new styles')
  verb.add_argument(
    '--steps',
    type=arguments.positive,
    default=8,
    help='number of images of an interpolation (default: 8)',
  )
  verb.add_argument(
    '--video',
    type=arguments.path,
    metavar='FILE',
    help='also write the interpolation of one input as an animated WebP; 48 images play 8 seconds',
  )
  verb.add_argument(
    '--seed', type=arguments.not_negative, default=0, help='seed of sampled styles (default: 0)'
  )
  _add_options(verb, 'translate')
  verb.add_argument(
    '--side-by-side',
    action='store_true',
    help='inputs and styles are A|B images: use the source half, for styles the target half',
  )


def _translate(args) -> None:
  from step_jax.infer import files

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
    options=arguments.given(args, options.flags('translate')),
    video=args.video,
  )
  print(f'{args.out}: {_count(written, "image")} and grid.png')


def add_codes(verbs, name: str) -> None:
  """Adds `codes`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _codes,
    'write style codes of images as .npy files, for --style of translate',
    'Writes NAME.npy for each image NAME.jpg, and codes.json, which identifies the encoder. '
    'Existing codes of the same encoder in --out are kept, and no input is replaced.',
  )
  verb.add_argument('inputs', nargs='+', help='images, or folders of images')
  encoder = verb.add_mutually_exclusive_group(required=True)
  encoder.add_argument('--workdir', type=arguments.run, help='folder of the run or export')
  without = [method.name for method in methods.METHODS.values() if method.codes]
  encoder.add_argument(
    '--method',
    choices=tuple(methods.METHODS),
    help=f'method with codes that need no run: {", ".join(without) or "none yet"}',
  )
  arguments.add_checkpoint(verb)
  verb.add_argument('--out', required=True, type=arguments.path, help='output folder')
  _add_options(verb, 'codes')
  verb.add_argument(
    '--side-by-side', action='store_true', help='inputs are A|B images: use the target half'
  )


def _codes(args) -> None:
  from step_jax.infer import encoding

  written = encoding.write(
    args.inputs,
    args.out,
    workdir=args.workdir or '',
    method=args.method or '',
    which=args.checkpoint,
    side_by_side=args.side_by_side,
    options=arguments.given(args, options.flags('codes')),
  )
  print(f'{args.out}: {_count(written, "code")} and codes.json')


def _count(things, name: str) -> str:
  return f'{len(things)} {name}' + 's' * (len(things) != 1)


def _add_options(verb, command: str) -> None:
  for name, of_methods in options.flags(command).items():
    option = next(iter(of_methods.values()))
    arguments.add_option(verb, name, option, f'{", ".join(of_methods)}: ')


def add_demo(verbs, name: str) -> None:
  """Adds `demo`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _demo,
    'serve a web page to try a trained run: inputs, styles, sliders, a map of styles',
    'Serves a web page, by default only to this machine. It needs the extra demo: run pip install '
    "-e '.[demo]' in the checkout. docs/demo.md shows how to use it on a remote machine.",
  )
  arguments.add_run(verb, demo.RUN)
  arguments.add_checkpoint(verb)
  verb.add_argument('--host', default=demo.HOST, help=f'host (default: {demo.HOST})')
  verb.add_argument(
    '--port', type=arguments.port, default=demo.PORT, help=f'port (default: {demo.PORT})'
  )


def _demo(args) -> None:
  demo.serve(args.workdir, args.host, args.port, args.checkpoint)


def add_export(verbs, name: str) -> None:
  """Adds `export`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _export,
    'write a trained run as files that work without step_jax',
    'Writes StableHLO for CPU, CUDA and TPU, for any batch and image size, with the parameters, a '
    'manifest, a README and an example that needs only JAX. See docs/export.md.',
  )
  arguments.add_run(verb)
  arguments.add_checkpoint(verb)
  verb.add_argument('--out', type=arguments.path, help='output folder (default: WORKDIR/export)')
  verb.add_argument(
    '--onnx',
    type=arguments.positive,
    default=0,
    metavar='PX',
    help='also write ONNX, for squares of this many px',
  )
  verb.add_argument(
    '--licence',
    default='other',
    metavar='ID',
    help='licence of the parameters for the model card, such as cc-by-4.0 (default: other)',
  )


def _export(args) -> None:
  from step_jax import export
  from step_jax.evaluate import results

  run = methods.load(args.workdir, args.checkpoint)
  out = args.out or methods.output(args.workdir) / 'export'
  print(export.write(run, out, args.onnx, results.read(run.folder), args.licence))
