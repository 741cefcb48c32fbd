"""Measures every protocol a second time, from PNG files with NumPy, Pillow, SciPy, scikit-image.

Networks are small stand-ins defined here; the real ones are tested elsewhere. They distinguish rows
from columns, are nonlinear, and expect images in [-1, 1]. Images have different, non-square sizes,
some are noise, and their number is not a multiple of the batch size. So scores differ if uint8
wraps around, height and width are swapped, a range or a resizer is wrong, or images of the last
batch are lost.
"""

import dataclasses

from flax import linen as nn
import numpy as np
from PIL import Image
import pytest
import scipy.linalg
import scipy.spatial.distance
from skimage.metrics import structural_similarity
import tiny

from step_jax import config as config_lib
from step_jax import data, weights
from step_jax.data import swatches
from step_jax.evaluate import bins, diversity, lpips, realism
from step_jax.evaluate.protocols import PROTOCOLS
from step_jax.evaluate.scores import Score, Skipped
from step_jax.methods.step import run as step_run
from step_jax.methods.step.scores import oracle, style
from step_jax.methods.step.scores import session as step_session
from step_jax.models import inception
from step_jax.train import mesh as mesh_lib

TAPS = {'fine': 0.5, 'middle': 1.0, 'coarse': 2.0}
HEADS = {'fine': np.float32([1, 2, 3]), 'coarse': np.float32([3, 1, 0.5])}
SEED = 3
INPUTS = 2
CROP = (15, 20)  # Some images are narrower: their crop is 15 by 14.

# Scores of SuperStyleNet and pSp are tested in tests/methods.
OTHERS = (
  'nrmse', 'segmentation', 'edit-locality', 'probe-region', 'l2/', 'identity',
  '{lpips}-diversity-noise', 'psnr-mean', '{lpips}-mean',
)  # fmt: skip
OF_STEP = [name for name in PROTOCOLS if not name.startswith(OTHERS)]


@pytest.fixture(scope='module', autouse=True)
def whole_scores():
  """The sizes of the protocols."""
  with tiny.score_at(256, 224):
    yield


def taps_of(x):
  """Feature maps `[B, h, w, 3]` of images in [-1, 1]."""
  rows = np.arange(x.shape[1], dtype=np.float32)[:, None, None] / x.shape[1]
  x = x[:, :, ::2] * (2 * rows + 0.5)
  fine = x[:, 1:] * x[:, :-1] + 0.5 * x[:, 1:] + 0.2
  middle = (fine[:, 1::2] - fine[:, :-1:2]) * (1 + fine[:, 1::2, :, ::-1]) + 0.3
  coarse = middle[:, :, 2::3] + 2 * middle[:, :, :-2:3] * middle[:, :, 2::3]
  return {'fine': fine, 'middle': middle, 'coarse': coarse, 'fire9': 4 * coarse[:, ::2]}


def code_of(x):
  """Style codes `[B, 3]`: colours, with larger weights of lower rows."""
  rows = 1 + 3 * np.arange(x.shape[1], dtype=np.float32)[:, None, None] / x.shape[1]
  return (rows * (x + x * x)).mean(axis=(1, 2))


def paint(x, z):
  """Outputs in and around [-1, 1] that depend on position, source and code."""
  rows = np.arange(x.shape[1], dtype=np.float32)[:, None, None] / 20
  columns = np.arange(x.shape[2], dtype=np.float32)[:, None] / 40
  return 0.6 * x[..., ::-1] * (1 - rows / 2) + 0.5 * z[:, None, None] * rows - columns + 0.4


def inception_of(x):
  """Features `[B, 3]` of images in 0..255."""
  bends = x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]
  return (bends**2).mean(axis=(1, 2)) + ((x[:, :40] / 100) ** 2).mean(axis=(1, 2))


class Net(nn.Module):
  taps: tuple = tuple(TAPS)

  def __call__(self, x):
    found = taps_of(x)
    return {tap: found[tap] for tap in self.taps}


class Encoder(nn.Module):
  def __call__(self, x):
    return (code_of(x),) * 3


class Painter(nn.Module):
  def __call__(self, x, z):
    return paint(x, z)


class Judge(inception.Inception):
  def __call__(self, x):
    return inception_of(x)


class Session(step_session.StepSession):
  encoder = Encoder()
  generator = Painter()


def png(seed, height, width):
  """A smooth image with noise of every scale, from black to white."""
  random = np.random.RandomState(seed)
  coarse = random.randint(0, 256, (4, 3, 3), np.uint8)
  smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), float)
  noise = random.uniform(-90, 90, (height, width, 3)) * random.uniform(0, 1)
  return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def write(folder, split, count, first):
  """Writes side-by-side pairs, alternately wide and high; returns their crops."""
  (folder / split).mkdir()
  found = []
  for i in range(count):
    (height, width), middle = (
      ((18, 26), np.s_[1:16, 3:23]) if i % 7 < 4 else ((23, 14), np.s_[4:19])
    )
    pair = [png(first + 2 * i + side, height, width) for side in range(2)]
    Image.fromarray(np.concatenate(pair, axis=1)).save(folder / split / f'{i:03d}.png')
    found.append([picture[middle] for picture in pair])
  return found


def open_session(found, crop, seed=SEED):
  config = config_lib.load(config_lib.stage_file('translate'))
  config.data.eval_crop = crop
  config.features.taps, config.features.tap_weights = tuple(TAPS), tuple(TAPS.values())
  mesh = mesh_lib.make_mesh()
  return Session(
    folder=None,
    run=step_run.Translator(config, 1, {}),
    pair_set=found,
    split='val',
    features=weights.Features(Net(), {}, 'made up', '1' * 64),
    learned=[lpips.Lpips('lpips-made-up', '2 3', Net(), {'trunk': {}, 'heads': HEADS})],
    mesh=mesh,
    params={'style_encoder': {}, 'generator': {}},
    seed=seed,
  )


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
  """A session, and the pairs of train and val."""
  folder = tmp_path_factory.mktemp('pairs')
  train, val = write(folder, 'train', 30, 1000), write(folder, 'val', 21, 0)
  return open_session(data.open_data(str(folder)), CROP), train, val


@pytest.fixture(scope='module')
def measured(opened, tmp_path_factory):
  """Scores by id from the evaluation, and values by id from this file."""
  session, *pairs = opened
  make = swatches.picture_set
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('STEP_JAX_WEIGHTS', str(tmp_path_factory.mktemp('no_weights')))
    patch.setenv('STEP_JAX_CACHE', str(tmp_path_factory.mktemp('small_swatches')))
    compare_bins, histograms = bins.compare_bins, []
    patch.setattr(
      bins, 'compare_bins', lambda *args: histograms.extend(args) or compare_bins(*args)
    )
    fit_bins, binned = bins.fit_bins, []
    patch.setattr(bins, 'fit_bins', lambda x, *args: binned.append(x) or fit_bins(x, *args))
    patch.setattr(diversity, 'INPUTS', INPUTS)
    patch.setattr(diversity, '_OUTPUTS_PER_BIN', 2)
    patch.setattr(swatches, 'picture_set', lambda size, **more: make(28, 30, 11, **more))
    trained = weights.Features(Net(('fire9',)), {}, 'made up', '4' * 64)
    patch.setattr(weights, 'load_features', lambda net, taps: trained)
    swatch_session = open_session(data.open_data('swatches'), (16, 22))
    found = [
      *(item for part in (oracle, style, diversity, realism) for item in part.measure(session)),
      *(item for item in style.measure(swatch_session) if 'probe' in item.protocol.id),
    ]
    loaded = weights.Features(Judge(), {}, 'made up', '5' * 64)
    patch.setattr(weights, 'load_inception', lambda: loaded)
    found += realism.measure(session)
  scores = {item.protocol.id: item for item in found if isinstance(item, Score)}
  return scores, Again(*pairs).measure() | probe_again(), (histograms, binned)


def to_float(picture):
  return picture.astype(float)[None] * 2 / 255 - 1


def code(picture):
  return code_of(to_float(picture))[0]


def translated(source, z):
  return np.clip(np.rint(paint(to_float(source), z[None])[0] * 127.5 + 127.5), 0, 255).astype(
    np.uint8
  )


def resized(picture, size):
  return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))


def resized_clean(picture, size):
  channels = [
    Image.fromarray(picture[..., c].astype(np.float32)).resize(
      (size, size), Image.Resampling.BICUBIC
    )
    for c in range(3)
  ]
  return np.stack(channels, axis=-1).astype(float)


def units(picture):
  """What LPIPS compares: features of length 1, at 256 px."""
  found = taps_of(to_float(resized(picture, 256)))
  return {tap: found[tap] / np.linalg.norm(found[tap], axis=-1, keepdims=True) for tap in HEADS}


def lpips_of(a, b):
  return sum(np.mean((a[tap] - b[tap]) ** 2 @ np.float64(HEADS[tap])) for tap in HEADS)


def psnr(a, b):
  return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def content(a, b):
  a, b = (taps_of(to_float(picture))['middle'][0] for picture in (a, b))
  a, b = ((x - x.mean(axis=(0, 1))) / (x.std(axis=(0, 1)) + 1e-5) for x in (a, b))
  return np.mean((a - b) ** 2)


def grams(picture):
  flat = [tap[0].reshape(-1, 3) for name, tap in taps_of(to_float(picture)).items() if name in TAPS]
  # The mean over the entries of all matrices: divide by 3 again.
  return np.concatenate([(x.T @ x / (3 * len(x))).reshape(-1) / 3 for x in flat])


def nearest(rows, k=5):
  distance = scipy.spatial.distance.cdist(rows, rows)
  np.fill_diagonal(distance, np.inf)
  return np.argsort(distance, axis=1)[:, :k]


class Again:
  """The same scores, computed without the evaluation code except K-means."""

  def __init__(self, train, val):
    self.train, self.val = train, val
    self.codes = np.stack([code(target) for _, target in val])
    self.train_codes = np.stack([code(target) for _, target in train])

  def draw(self, count):
    mean, covariance = self.train_codes.mean(axis=0), np.cov(self.train_codes.T)
    return np.random.default_rng(SEED).multivariate_normal(mean, covariance, count)

  def following(self):
    """The next image in the batch of eight with the same size; None if there is none."""
    by_size = {}
    for i, (_, target) in enumerate(self.val):
      by_size.setdefault(target.shape, []).append(i)
    found = {}
    for members in by_size.values():
      for start in range(0, len(members), 8):
        eight = members[start : start + 8]
        found |= dict(zip(eight, [*eight[1:], eight[0]], strict=True))
        found |= {eight[0]: None} if len(eight) == 1 else {}
    return [found[i] for i in range(len(self.val))]

  def measure(self):
    return self.rebuilt() | self.retrieval() | self.diversity() | self.bins() | self.realism()

  def rebuilt(self):
    found = {}
    note = lambda name, value: found.setdefault(name, []).append(value)
    photos = []
    mean_distance = scipy.spatial.distance.pdist(self.codes).mean()
    for i, j in enumerate(self.following()):
      source, target = self.val[i]
      own = translated(source, self.codes[i])
      note('psnr/uint8', psnr(own, target))
      note('l1/uint8', np.mean(abs(own.astype(float) - target)) / 255)
      kinds = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
      note('ssim/uint8', structural_similarity(own, target, channel_axis=2, **kinds))
      a, b = taps_of(to_float(own)), taps_of(to_float(target))
      weighted = [w * np.mean((0.1 * (a[tap] - b[tap])) ** 2) for tap, w in TAPS.items()]
      note('perceptual-vgg16/native', sum(weighted))
      note('lpips-made-up/256', lpips_of(units(own), units(target)))
      alone = j is None
      other = own if alone else translated(source, self.codes[j])
      next_ = target if alone else self.val[j][1]
      z = self.codes[i if alone else j]
      for name, value in {
        'psnr-other-style/uint8': psnr(other, target),
        'psnr-lead/uint8': psnr(own, target) - psnr(other, target),
        'lpips-made-up-styles/256': lpips_of(units(own), units(other)),
        'lpips-made-up-photos/256': lpips_of(units(target), units(next_)),
        'style-code-error/relative': np.linalg.norm(code(other) - z) / mean_distance,
        'content-distance-vgg16/relative': content(own, other),
      }.items():
        note(name, np.nan if alone else value)
      photos += [] if alone else [content(target, next_)]
    found['content-distance-vgg16/relative'] /= np.mean(photos)
    return found

  def retrieval(self):
    by_style = nearest(np.stack([grams(target) for _, target in self.val]))
    pairs = zip(nearest(self.codes), by_style, strict=True)
    return {'retrieval-precision@5-vgg16': [len(set(a) & set(b)) / 5 for a, b in pairs]}

  def diversity(self):
    drawn = self.draw(20 * INPUTS).reshape(INPUTS, 20, 3)
    found = {'exemplar': [], 'sampled': [], 'bicyclegan': []}
    for i in range(INPUTS):
      others = np.delete(np.arange(len(self.val)), i)
      chosen = np.random.default_rng([SEED, i]).choice(others, 16, replace=False)
      seen = lambda styles, i=i: [units(translated(self.val[i][0], z)) for z in styles]
      exemplar, sampled = seen(self.codes[chosen]), seen(drawn[i])
      pairs = [(a, b) for a in range(16) for b in range(a)]
      found['exemplar'].append(np.mean([lpips_of(exemplar[a], exemplar[b]) for a, b in pairs]))
      found['sampled'].append(np.mean([lpips_of(sampled[a], sampled[b]) for a, b in pairs]))
      steps = [lpips_of(sampled[a], sampled[a + 1]) for a in range(19)]
      found['bicyclegan'].append(np.mean(steps))
    return {f'lpips-made-up-diversity-{kind}/256': values for kind, values in found.items()}

  def outputs(self):
    pairs = zip(self.val, self.draw(len(self.val)), strict=True)
    return [translated(source, z) for (source, _), z in pairs]

  def histograms(self):
    flat = lambda pictures: np.float64([resized(picture, 32).reshape(-1) for picture in pictures])
    fitted = bins.fit_bins(flat([target for _, target in self.train]), 10)
    distance = scipy.spatial.distance.cdist(flat(self.outputs()), fitted.centers)
    return fitted.counts, np.bincount(distance.argmin(axis=1), minlength=10)

  def bins(self):
    score = bins.compare_bins(*self.histograms())
    return {'ndb/32': score.share, 'jsd/32': score.jsd}

  def realism(self):
    found = {}
    real = [target for _, target in self.train[: len(self.val)]]
    describe = {
      'fid-inception-tf/299-clean kid-inception-tf/299-clean': lambda picture: inception_of(
        resized_clean(picture, 299)[None]
      )[0],
      'frechet-squeezenet1_1/224-clean kernel-squeezenet1_1/224-clean': lambda picture: taps_of(
        resized_clean(picture, 224)[None] * 2 / 255 - 1
      )['fire9'].mean(axis=(0, 1, 2)),
    }
    for names, features in describe.items():
      x, y = (np.stack([features(picture) for picture in set_]) for set_ in (real, self.outputs()))
      covariances = np.cov(x.T), np.cov(y.T)
      root = np.real(scipy.linalg.sqrtm(covariances[0] @ covariances[1]))
      gap = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
      kernel = lambda a, b: (a @ b.T / 3 + 1) ** 3
      within = [(kernel(a, a).sum() - np.trace(kernel(a, a))) / (21 * 20) for a in (x, y)]
      found |= dict(
        zip(
          names.split(),
          (
            gap + np.trace(covariances[0] + covariances[1] - 2 * root),
            sum(within) - 2 * kernel(x, y).mean(),
          ),
          strict=True,
        )
      )
    return found


def probe_again():
  """R^2 of ridge regression, written as least squares with additional rows."""
  sets = {}
  for split, count in (('train', 30), ('val', 11)):
    names = [f'{split}/{i:05d}' for i in range(count)]
    crops = [swatches.render(name, 28)['B'][6:22, 3:25] for name in names]
    sets[split] = np.stack(list(map(code, crops))), [swatches.style_of(name) for name in names]
  (z, known), (tested, asked) = sets['train'], sets['val']
  mean, deviation = z.mean(axis=0), z.std(axis=0)
  z, tested = (z - mean) / deviation, (tested - mean) / deviation
  rows = np.concatenate([z, np.sqrt(1e-3 * len(z)) * np.eye(3)])
  turn = lambda values: 2 * np.pi * values
  factors = {
    'palette': [
      lambda s: np.sin(turn(s.hue)), lambda s: np.cos(turn(s.hue)), lambda s: s.spread,
      lambda s: s.saturation, lambda s: s.brightness,
    ],
    'texture': [lambda s: s.frequency, lambda s: s.contrast],
    'light': [
      lambda s: np.sin(s.light_angle), lambda s: np.cos(s.light_angle), lambda s: s.light_strength
    ],
  }  # fmt: skip
  found = {}
  for group, functions in factors.items():
    scores = []
    for function in functions:
      given, true = (np.array(list(map(function, styles))) for styles in (known, asked))
      centred = np.concatenate([given - given.mean(), np.zeros(3)])
      weights = np.linalg.lstsq(rows, centred)[0]
      error = true - given.mean() - tested @ weights
      scores.append(1 - np.sum(error**2) / np.sum((true - true.mean()) ** 2))
    found[f'probe-{group}'] = np.mean(scores)
  return found


def ids(protocol):
  """Ids of a protocol with all placeholders filled."""
  lpips_ = 'lpips-made-up'
  net = 'squeezenet1_1' if PROTOCOLS[protocol].group == 'realism' else 'vgg16'
  factors = style.FACTORS if '{factor}' in protocol else ['']
  return [protocol.format(lpips=lpips_, net=net, k='5', factor=factor) for factor in factors]


@pytest.mark.parametrize('protocol', OF_STEP)
def test_a_protocol_has_its_definition(measured, protocol):
  scores, again, _ = measured
  for name in ids(protocol):
    score, expected = scores[name], np.float64(again[name])
    # One pixel in a thousand may round the other way.
    if expected.ndim:
      np.testing.assert_allclose(score.values, expected, rtol=3e-3, err_msg=name)
    np.testing.assert_allclose(score.value, np.nanmean(expected), rtol=3e-3, err_msg=name)


def test_ndb_is_of_the_same_histograms(opened, measured):
  """With so few images, NDB hardly shows errors, but the histogram counts do."""
  histograms, (binned,) = measured[2]
  np.testing.assert_array_equal(histograms, Again(*opened[1:]).histograms())
  expected = [resized(target, 32).reshape(-1) for _, target in opened[1]]
  np.testing.assert_array_equal(binned, expected)


def test_all_protocols_are_covered(measured):
  assert sorted(measured[0]) == sorted(measured[1])
  assert sorted(measured[0]) == sorted(name for protocol in OF_STEP for name in ids(protocol))


class NoCode(nn.Module):
  def __call__(self, x):
    return (code_of(x)[:, :0],) * 3


class Plain(nn.Module):
  def __call__(self, x, z):
    assert z.shape == (len(x), 0)
    return 0.9 * x


class Styleless(Session):
  encoder = NoCode()
  generator = Plain()


def test_scores_of_styles_are_skipped_without_styles(opened, empty_store, monkeypatch):
  """pix2pix, with codes of length zero, has no content score; its images are scored."""
  session, *_ = opened
  config = session.config.copy_and_resolve_references()
  config.model.z_dim = 0
  fields = {field.name: getattr(session, field.name) for field in dataclasses.fields(session)}
  translator = step_run.Translator(config, 1, {})
  session = Styleless(**{**fields, 'run': translator})
  trained = weights.Features(Net(('fire9',)), {}, 'made up', '4' * 64)
  monkeypatch.setattr(weights, 'load_features', lambda net, taps: trained)
  found = [
    *(item for part in (oracle, style, diversity, realism) for item in part.measure(session))
  ]
  scores = {item.protocol.id: item for item in found if isinstance(item, Score)}
  assert set(scores) == {
    *('psnr/uint8', 'ssim/uint8', 'l1/uint8', 'perceptual-vgg16/native', 'lpips-made-up/256'),
    *('ndb/32', 'jsd/32', 'frechet-squeezenet1_1/224-clean', 'kernel-squeezenet1_1/224-clean'),
  }
  skipped = {item.what: item.why for item in found if isinstance(item, Skipped)}
  assert set(skipped) == {'style', 'LPIPS diversity'}
  assert set(skipped.values()) == {'the run has no styles'}
  assert all(np.isfinite(score.value) for score in scores.values())
  assert scores['ndb/32'].protocol.definition['sampler'] == 'none, for the run has no styles'
