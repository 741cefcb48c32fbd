"""SuperStyleNet: style codes of regions from superpixels, and a generator conditioned on them.

Kim et al., "SuperStyleNet: Deep Image Synthesis with Superpixel Based Style Encoder", BMVC 2021.
"""

from step_jax.methods.method import Bench, Importer, Method, Option, Stage, positive
from step_jax.methods.superstylenet.presets import PRESETS

_HERE = 'step_jax.methods.superstylenet'


def _region(text: str):
  from step_jax.methods.superstylenet import regions

  return regions.parse(text)


METHOD = Method(
  name='superstylenet',
  title='SuperStyleNet: superpixel style codes per region, edited and drawn region by region',
  stages=(Stage('superstylenet', f'{_HERE}.stage'),),
  translating=('superstylenet',),
  run=f'{_HERE}.run:load',
  source_role='labels',
  code_roles=('target', 'labels'),
  options=(
    Option(
      'labels', 'label map of each style image, or a folder of them', of='encode',
      nargs='+', metavar='MAP', read=f'{_HERE}.inputs:read_labels',
    ),
    Option(
      'region', 'code of a region from another image; @SHARE blends, such as 3=R.png:RL.png@0.5',
      kind=_region, nargs='+', metavar='LABEL=IMAGE:MAP',
    ),
    Option(
      'fallback', 'image per input with codes for regions that the style lacks (default: mean '
      'codes)', nargs='+', metavar='IMAGE', read=f'{_HERE}.inputs:read_fallback',
    ),
    Option(
      'regions', 'labels whose codes an interpolation changes (default: all)', of='interpolate',
      kind=int, nargs='+', metavar='LABEL',
    ),
    Option(
      'noise-seed', "seed of the generator's noise (default: no noise)", kind=int, metavar='N',
    ),
    Option(
      'tile', 'generate images of any size in tiles of this side in px, such as 256, with little '
      'memory; label maps keep their size (default: whole images)', kind=positive, metavar='PX',
    ),
    Option('classes', 'number of classes of the label maps', of='codes', kind=positive),
    Option(
      'palette', 'how label maps encode classes, as data.palette (default: index)', of='codes'
    ),
    Option('size', 'size in px to resize images to (default: 512)', of='codes', kind=positive),
  ),
  read_source=f'{_HERE}.inputs:read_source',
  codes=f'{_HERE}.inputs:encoder',
  presets=PRESETS,
  session=f'{_HERE}.measures:RegionSession',
  measures=f'{_HERE}.measures:MEASURES',
  galleries=f'{_HERE}.galleries:make',
  programs=f'{_HERE}.programs:bundle',
  restore=f'{_HERE}.programs:restore',
  page=f'{_HERE}.page.page:Page.open',
  benches={
    'spse': Bench(dict(size=512, batch=1), fields=('size', 'batch'), peers=('numpy',)),
    'superstylenet_step': Bench(
      dict(size=64, batch=4, width=16, features='squeezenet1_1'),
      fields=('size', 'batch', 'width', 'dtype', 'features'),
      stages=('superstylenet',),
      peers=('torch',),
      nets=('squeezenet1_1', 'vgg19'),
    ),
  },
  cases=f'{_HERE}.cases',
  importers=(
    Importer(
      'import-superstylenet',
      'import published checkpoints, G.pth and optionally D.pth',
      'FILE',
      f'{_HERE}.import_run:import_run',
      nargs='+',
      options=(
        Option('classes', 'number of labels, to check the files', kind=positive),
        Option('data', 'images with label maps, for evaluation and further training'),
        Option('preset', 'settings of a known data set'),
        Option('upsamplings', 'number of upsamplings (default: 5)', kind=positive),
      ),
    ),
  ),
  quickstart=f'{_HERE}.quickstart:RECIPE',
)  # fmt: skip
