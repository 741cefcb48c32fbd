"""A run from training to files with all functions of the method, at the smallest size."""

import argparse
import functools
import logging

import flax.traverse_util
import jax
import numpy as np
import pytest
import region_runs

from step_jax import methods, report
from step_jax.data import pictures, swatches
from step_jax.errors import ConfigError, DataError, RunError
from step_jax.evaluate import results, segmenter
from step_jax.infer import encoding, files
from step_jax.methods.superstylenet import codes as codes_lib
from step_jax.methods.superstylenet import extraction, programs, quickstart, regions
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.page import painting
from step_jax.train import stopping, writers

SIZE = 16


@pytest.fixture(scope='module')
def small_sets():
  """Built-in data sets with few images, and a segmenter with little training."""
  with pytest.MonkeyPatch.context() as patch:
    few = functools.partial(swatches.picture_set, **region_runs.IMAGES)
    patch.setattr(swatches, 'picture_set', few)
    patch.setattr(segmenter, 'SETTINGS', {**segmenter.SETTINGS, 'steps': 4, 'width': 4})
    yield


@pytest.fixture(scope='module')
def workdir(small_sets, tmp_path_factory):
  """A run that was stopped after two steps and resumed to four."""
  folder = tmp_path_factory.mktemp('run')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(stopping.Stop, 'now', lambda self, step: step == 2)
    region_runs.train(folder)
  region_runs.train(folder)
  assert 'steps 3 to 6' in (folder / 'superstylenet/train.log').read_text()
  return folder


@pytest.fixture(scope='module')
def run(workdir):
  return methods.load(workdir)


@pytest.fixture(scope='module')
def examples():
  """Two images with label maps, one of which lacks a class."""
  names = [f'val/{i:05d}' for i in range(2)]
  found = [swatches.render(name, SIZE, labelled=True, regional=True) for name in names]
  assert len(set(found[0]['labels'].flat) ^ set(found[1]['labels'].flat))
  return found


def test_training_writes_what_it_promises(workdir):
  folder = workdir / 'superstylenet'
  rows = writers.read_metrics(folder)
  assert [row['step'] for row in rows if 'loss_generator' in row] == [2, 4, 6]
  scored = [row for row in rows if 'val_psnr' in row]
  assert scored[-1]['step'] == 6
  assert {'val_psnr_other', 'val_l1', 'val_perceptual'} <= scored[-1].keys()
  assert (folder / 'codes.npz').is_file()


def test_resumed_is_as_trained_at_once(workdir, small_sets, tmp_path):
  region_runs.train(tmp_path)
  states = [methods.load(folder).params for folder in (workdir, tmp_path)]
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_translations(run, examples, caplog):
  a, b = (run.encode(example['B'], example['labels']) for example in examples)
  both = run.encode(*(np.stack([e[name] for e in examples]) for name in ('B', 'labels')))
  np.testing.assert_array_equal(both.valid, np.stack([a.valid, b.valid]))
  maps = np.stack([example['labels'] for example in examples])
  one = run.translate(maps[0], a)
  assert one.shape == (SIZE, SIZE, 3) and one.dtype == np.uint8
  np.testing.assert_array_equal(run.translate(maps, both)[0], one)
  line = run.interpolate(maps[0], a, b, 3)
  np.testing.assert_array_equal(line[0], one)
  np.testing.assert_array_equal(line[2], run.translate(maps[0], b, fallback=a))
  assert run.sample(maps, 2).shape == (2, 2, SIZE, SIZE, 3)
  np.testing.assert_array_equal(run.draw(3, 1).codes, run.draw(3, 1).codes)
  # A label without a code in the style is reported.
  lacking = RegionCodes(a.codes * 0, np.zeros_like(a.valid))
  with caplog.at_level(logging.WARNING):
    run.translate(maps[0], lacking)
  assert 'have no code in the style image: used the mean code of the label' in caplog.text
  with pytest.raises(DataError, match='has the class 9, but this run has the classes 0 to 4'):
    run.translate(np.full((SIZE, SIZE), 9))
  with pytest.raises(DataError, match='--style-labels'):
    run.encode(examples[0]['B'])


def test_edits_stay_in_their_region(run, examples):
  """At test time, only convolutions and no norms follow the style of a region."""
  a, b = (run.encode(example['B'], example['labels']) for example in examples)
  label = int(np.flatnonzero(a.valid & b.valid)[0])
  edited = a.with_region(label, b)
  np.testing.assert_array_equal(edited.codes[label], b.codes[label])
  assert run.translate(examples[0]['labels'], edited).shape == (SIZE, SIZE, 3)


@pytest.fixture(scope='module')
def image_files(examples, tmp_path_factory):
  folder = tmp_path_factory.mktemp('files')
  for i, example in enumerate(examples):
    pictures.write_png(folder / f'image{i}.png', example['B'])
    colours = swatches.CLASS_COLORS.astype(np.uint8)[example['labels']]
    pictures.write_png(folder / f'map{i}.png', colours)
  return folder


def test_label_maps_in_tiles_keep_their_size(workdir, image_files, examples, tmp_path, monkeypatch):
  run = methods.load(workdir)
  run.config.data.resize = SIZE // 2
  monkeypatch.setattr(methods, 'load', lambda *args, **kwargs: run)
  expected = run.translate(examples[0]['labels'])
  for options, side in (({}, SIZE // 2), ({'tile': 4}, SIZE)):
    (path,) = files.translate(
      workdir, [image_files / 'map0.png'], tmp_path / str(side), sample=1, options=options
    )
    assert pictures.read_picture(path).shape == (side, side, 3)
  np.testing.assert_allclose(run.translate(examples[0]['labels'], tile=4), expected, atol=1)


def test_files(workdir, image_files, examples, run, tmp_path):
  image, label_map = ([image_files / f'{name}{i}.png' for i in (0, 1)] for name in ('image', 'map'))
  style = {'styles': [image[0]], 'options': {'style_labels': [label_map[0]]}}
  (plain,) = files.translate(workdir, [label_map[0]], tmp_path / 'plain', **style)
  expected = run.translate(
    examples[0]['labels'], run.encode(examples[0]['B'], examples[0]['labels'])
  )
  np.testing.assert_array_equal(pictures.read_picture(plain), expected)
  region = regions.parse(f'0={image[1]}:{label_map[1]}')
  style['options'] |= {'region': [region]}
  (edited,) = files.translate(workdir, [label_map[0]], tmp_path / 'edited', **style)
  codes = [run.encode(example['B'], example['labels']) for example in examples]
  expected = run.translate(examples[0]['labels'], codes[0].with_region(0, codes[1]))
  np.testing.assert_array_equal(pictures.read_picture(edited), expected)
  some = {'style_labels': label_map, 'regions': [0]}
  line = files.translate(
    workdir, [label_map[0]], tmp_path / 'line', interpolate=image, steps=2, options=some
  )
  for found, end in zip(line, (plain, edited), strict=True):
    assert found.read_bytes() == end.read_bytes()
  with pytest.raises(ConfigError, match='--regions: .* give --interpolate A B too'):
    files.translate(workdir, [label_map[0]], tmp_path / 'no', styles=image, options=some)
  with pytest.raises(DataError, match='there is no label 9: labels are 0 to 4'):
    files.translate(
      workdir, [label_map[0]], tmp_path / 'no', interpolate=image, options=some | {'regions': [9]}
    )
  # Codes of the same images without a run are the same, and serve as styles.
  written = encoding.write(
    image,
    tmp_path / 'codes',
    method='superstylenet',
    options={'labels': label_map, 'classes': 5, 'palette': 'swatches', 'size': 32},
  )
  stored = codes_lib.read(written[1], 5, 512)
  own = run.encode(examples[1]['B'], examples[1]['labels'])
  np.testing.assert_allclose(stored.codes, own.codes, atol=1e-6)
  files.translate(workdir, [label_map[0]], tmp_path / 'by_code', styles=[written[1]])


@pytest.mark.parametrize('text', ['3', '3=a.png', 'x=a.png:b.png', '3=:b.png'])
def test_regions_that_cannot_be_read(text):
  with pytest.raises(argparse.ArgumentTypeError, match='is not LABEL=IMAGE:LABELS'):
    regions.parse(text)


def test_scores(workdir):
  found = results.evaluate(workdir, groups=['reconstruction', 'style'])
  names = {'psnr/uint8', 'ssim/uint8', 'nrmse/uint8', 'l1/uint8', 'psnr-other-style/uint8'}
  names |= {f'segmentation-{what}{of}' for what in ('miou', 'accuracy') for of in ('', '-photos')}
  scores = found['scores']
  assert names | {'edit-locality/uint8'} <= scores.keys()
  assert 0 <= scores['segmentation-miou']['value'] <= scores['segmentation-accuracy']['value'] <= 1
  assert 'segmenter' in scores['segmentation-miou']['definition']
  assert scores['nrmse/uint8']['value'] > 0


def test_a_table_of_labels():
  table = np.array([[6.0, 2, 0], [1, 3, 0], [0, 0, 0]])
  assert segmenter.mean_iou(table) == pytest.approx((6 / 9 + 3 / 6) / 2)
  assert segmenter.pixel_accuracy(table) == pytest.approx(9 / 12)


def test_report(workdir):
  page = report.write(workdir).read_text('utf-8')
  assert 'Edits of one region' in page


def test_quickstart_shows_all(workdir):
  quickstart.show(workdir)
  for name in ('transfer', 'blends', 'samples', 'sky'):
    assert (workdir / name / 'grid.png').is_file()


def test_export(run, examples, tmp_path):
  bundle = programs.bundle(run, platforms=('cpu',))
  assert set(bundle.programs) == {'encode', 'generate'}
  encode = bundle.programs['encode']
  fitted = extraction.fit(examples[0]['B'], examples[0]['labels'], 32)
  params = {name: bundle.arrays[name] for name in encode.parameters}
  codes = encode.exported.call(
    params, fitted['image'][None], fitted['labels'][None].astype(np.uint8)
  )
  own = run.encode(examples[0]['B'], examples[0]['labels'])
  np.testing.assert_allclose(codes[0], run.pack(own), atol=1e-5)
  tree = flax.traverse_util.unflatten_dict(dict(bundle.arrays), sep='/')
  opened = programs.restore(run.config, run.step, tree)
  labels = examples[0]['labels']
  np.testing.assert_array_equal(opened.sample(labels, 2), run.sample(labels, 2))
  for own, other in zip(opened.mean, run.mean, strict=True):
    np.testing.assert_array_equal(own, other)
  del tree['run']['mean']
  with pytest.raises(KeyError):
    programs.restore(run.config, run.step, tree)


def test_a_missing_bank_is_an_error(tmp_path):
  with pytest.raises(RunError, match='re-run the training command'):
    extraction.read_bank(tmp_path / 'codes.npz', 5)


def test_the_page_paints_and_edits_regions(workdir, run, image_files, tmp_path, monkeypatch):
  pytest.importorskip('gradio', reason="gradio is missing: pip install -e '.[demo]'")
  from step_jax.demo import controls
  from step_jax.methods.superstylenet.page import page as page_lib

  monkeypatch.setattr(methods, 'load', lambda *args: run)  # Already compiled.
  page = page_lib.Page.open(workdir, 'latest', tmp_path)
  of_result = lambda update: pictures.read_picture(update[page.result])
  # The run's own examples, with sides keyed by role.
  shown, other = page._examples[:2]
  a, b = (run.encode(example['target'], example['labels']) for example in (shown, other))
  label = int(np.flatnonzero(a.valid & b.valid & np.isin(range(5), shown['labels']))[0])
  update = page.begin(page.first_choice)
  np.testing.assert_array_equal(of_result(update), run.translate(shown['labels'], a))
  assert update[page.superpixels].shape == (512, 512, 3)

  with pytest.raises(DataError, match='choose a region first'):
    page.use_other(update[page.choice], 1)
  row, column = np.argwhere(shown['labels'] == label)[0]
  event = type('', (), {'index': (int(column), int(row))})
  update = page._click(update[page.choice], event)
  assert update[page.region] == label and update[page.kind] == page_lib.OWN
  faded = update[page.map] != painting.regions(shown['labels'], None)
  np.testing.assert_array_equal(faded.any(-1), shown['labels'] != label)

  update = page.use_other(update[page.choice], 1)
  edited = run.translate(shown['labels'], a.with_region(label, b))
  np.testing.assert_array_equal(of_result(update), edited)
  update = page.blend(update[page.choice], 0.25)
  mixed = a.interpolate(b, 0.25, [label])
  np.testing.assert_array_equal(of_result(update), run.translate(shown['labels'], mixed))
  # Edits are kept when the style changes, and the region shows its choice.
  files = [str(image_files / f'{name}1.png') for name in ('image', 'map')]
  update = page.use_files(update[page.choice], *files)
  assert update[page.choice].edits.keys() == {label}
  assert page.choose(update[page.choice], label)[page.share] == 0.25
  update = page.use_known(update[page.choice], 0)
  mean = page.use_kind(update[page.choice], page_lib.MEAN)
  expected = run.translate(shown['labels'], a.with_region(label, run.mean))
  np.testing.assert_array_equal(of_result(mean), expected)
  update = page.use_kind(mean[page.choice], page_lib.OWN)
  np.testing.assert_array_equal(of_result(update), run.translate(shown['labels'], a))

  painted = update[page.choice].source.copy()
  painted[:4] = label
  strokes = controls.on_canvas(painting.regions(painted, None))
  update = page.use_painting(update[page.choice], strokes)
  np.testing.assert_array_equal(update[page.choice].source, painted)
  np.testing.assert_array_equal(of_result(update), run.translate(painted, a))
  with pytest.raises(DataError, match='the canvas is empty'):
    page.use_painting(update[page.choice], None)


def test_smoothed_strokes_make_no_classes():
  labels = np.zeros((64, 64), np.uint8)
  labels[20:40, 16:50] = 3
  image = painting.regions(labels, None).astype(float)
  image[20] = (image[19] + image[21]) / 2
  image[:, 50] = (image[:, 49] + image[:, 51]) / 2
  found = painting.read(np.rint(image).astype(np.uint8), 5, (64, 64))
  assert set(np.unique(found)) == {0, 3} and (found != labels).mean() < 0.02


def test_outlines_of_superpixels():
  labels = np.repeat([0, 1], 4)[None].repeat(8, 0).astype(np.uint8)
  parts = np.where(np.arange(8)[:, None] < 4, 0, 1).repeat(8, 1)
  found = painting.superpixels(np.full((8, 8, 3), 99, np.uint8), labels, parts)
  assert (found[:, 255] == 20).all() and (found[255, :255] == 255).all()
  assert (found[:255, :255] == 99).all()
