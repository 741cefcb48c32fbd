"""Verbs about what this machine has: weights, and what is wrong."""

from step_jax import methods
from step_jax.cli import arguments


def add_weights(verbs, name: str) -> None:
  """Adds `weights`, with the importers of all methods."""
  verb = arguments.add_verb(
    verbs,
    name,
    _weights,
    'get, convert or list weights of feature networks; import published checkpoints',
    'The perceptual loss and style mining need a feature network trained on ImageNet. '
    'Weights are stored in $STEP_JAX_WEIGHTS, or ~/.cache/step_jax/weights. SqueezeNet 1.1 and its '
    'LPIPS heads come with the package.',
  )
  actions = verb.add_subparsers(dest='action', required=True, metavar='ACTION')
  get = actions.add_parser('get', help='download (vgg16, squeezenet1_1, alexnet, lpips_alex, …)')
  get.add_argument('name', help='name of the network or of the LPIPS heads')
  get.add_argument('--url', action='append', help='mirror; …#sha256=HEX sets the required digest')
  convert = actions.add_parser(
    'convert',
    help='convert a PyTorch .pth, vgg16.npy, Keras .h5, .safetensors or .npz file to the store',
  )
  convert.add_argument('file', type=arguments.path, help='published weights file')
  convert.add_argument('--name', default='', help='name of the network, if the file is ambiguous')
  convert.add_argument('--out', type=arguments.path, help='output file (default: in the store)')
  actions.add_parser('list', help='list the files in the store, then those of the package')
  for method in methods.METHODS.values():
    for importer in method.importers:
      action = actions.add_parser(importer.name, help=importer.help)
      action.add_argument(
        'file',
        metavar=importer.metavar,
        nargs=importer.nargs,
        type=arguments.path,
        help='published file',
      )
      arguments.add_workdir(action)
      for option in importer.options:
        arguments.add_option(action, option.name, option)
      action.set_defaults(importer=importer)


def _weights(args) -> None:
  from step_jax import places, weights
  from step_jax.weights import store

  if args.action == 'get':
    print(weights.get(args.name, args.url))
  elif args.action == 'convert':
    for method in methods.METHODS.values():
      if method.convert and (own := method.hook('convert')(args.file, args.name)):
        print(weights.write(own, args.out))
        return
    print(weights.convert(args.file, args.name or None, args.out))
  elif hasattr(args, 'importer'):
    options = arguments.given(args, [option.name for option in args.importer.options])
    print(args.importer.function()(args.file, args.workdir, **options))
  else:
    folders = places.weights(), store.BUNDLED
    print('\n'.join(str(file) for it in folders for file in sorted(it.glob('*.safetensors'))))


def add_doctor(verbs, name: str) -> None:
  """Adds `doctor`."""
  verb = arguments.add_verb(
    verbs,
    name,
    _doctor,
    'check this machine: packages, devices, weights, problems',
    'Prints versions, devices, memory, weights and folders, then problems and how to fix them. '
    'The exit status is 1 if there are problems, else 0.',
  )
  verb.add_argument('--workdir', type=arguments.path, help='also check the disk of this folder')


def _doctor(args) -> int:
  from step_jax import doctor

  machine = doctor.look(args.workdir)
  wrong = doctor.problems(machine)
  print(doctor.text(machine, wrong))
  return int(bool(wrong))
