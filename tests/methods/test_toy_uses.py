"""The toy method is evaluated, reported, exported, served and used like any other method."""

import dataclasses
import json
import runpy
import socket
import sys
import urllib.request

from flax import linen as nn
import mosaic_runs
import numpy as np
from PIL import Image
import pytest

import step_jax
from step_jax import cli
from step_jax.bench import machine, settings
from step_jax.demo import server
from step_jax.errors import DataError
from step_jax.evaluate import diversity, lpips, reconstruction, results, scores
from step_jax.evaluate import session as session_lib
from step_jax.export import artefact


@pytest.fixture(scope='module', autouse=True)
def registered():
  with mosaic_runs.registered():
    yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return mosaic_runs.write_data(tmp_path_factory.mktemp('mosaics'), val=20)


def call(*arguments):
  assert cli.main(list(map(str, arguments))) == 0


@pytest.fixture(scope='module')
def workdir(folder, tmp_path_factory):
  """A run that was trained and scored on the command line."""
  path = tmp_path_factory.mktemp('run')
  fields = ('palette=index', 'classes=8', 'crop=(16,16)')
  given = [f'--config.data.{field}' for field in fields]
  call('train', 'mosaic', '--data', folder, '--workdir', path, *given)
  call('evaluate', '--workdir', path)
  return path


@pytest.fixture(scope='module')
def run(workdir):
  return step_jax.load(workdir)


@pytest.fixture(scope='module')
def session(workdir):
  return session_lib.open_run(workdir)


def image(path):
  return np.asarray(Image.open(path))


def test_scores_of_every_group_are_those_of_the_run(folder, run, workdir):
  found = results.find(workdir)
  assert found['features'] == 'none'
  groups = {score['group'] for score in found['scores'].values()}
  assert groups == {'reconstruction', 'style', 'diversity', 'realism'}
  errors, others = [], []
  paths = sorted((folder / 'val/images').iterdir())
  load = lambda i: (image(paths[i]), image(folder / 'val/labels' / paths[i].name))
  for i in range(len(paths)):
    target, labels = load(i)
    # Batches of eight; the last one has four.
    start = i - i % 8
    other = start + (i + 1 - start) % min(8, len(paths) - start)
    for code, to in ((run.encode(target, labels), errors), (run.encode(*load(other)), others)):
      to.append(np.mean(np.square(run.translate(labels, code).astype(float) - target)))
  psnr = lambda errors: 10 * np.log10(255**2 / np.array(errors))
  np.testing.assert_allclose(found['scores']['psnr/uint8']['values'], psnr(errors), rtol=1e-4)
  of_others = found['scores']['psnr-other-style/uint8']['values']
  np.testing.assert_allclose(of_others, psnr(others), rtol=1e-4)
  assert np.mean(psnr(errors)) > np.mean(of_others) + 1


def test_codes_of_other_images_are_chosen_by_trees(session):
  found = diversity.exemplar_styles(session, inputs=3, count=4)
  codes = session.codes('val')
  assert found.colours.shape == (3, 4, 8, 3) and found.valid.shape == (3, 4, 8)
  for i in range(3):
    one = scores.at(found, (i, 2))
    assert any(np.array_equal(one.colours, codes.colours[j]) for j in range(20) if j != i)


class Pixels(nn.Module):
  """A feature network that returns every 32nd pixel."""

  taps: tuple[str, ...] = ('pixels',)

  def __call__(self, x):
    return {'pixels': x[:, ::32, ::32]}


def test_learned_distances_are_of_any_method(session, monkeypatch):
  heads = {'pixels': np.ones(3, np.float32)}
  net = lpips.Lpips('lpips-made-up', '1', Pixels(), {'trunk': {}, 'heads': heads})
  opened = dataclasses.replace(session, learned=[net])
  monkeypatch.setattr(diversity, 'INPUTS', 2)
  measured = [*reconstruction.measure(opened), *diversity.measure(opened)]
  found = {item.protocol.id: item for item in measured if isinstance(item, scores.Score)}
  assert found['lpips-made-up/256'].values.shape == (20,)
  for kind in ('exemplar', 'sampled', 'bicyclegan'):
    assert found[f'lpips-made-up-diversity-{kind}/256'].values.shape == (2,)
    assert found[f'lpips-made-up-diversity-{kind}/256'].value > 0


def test_the_next_image_of_a_batch():
  sizes = [(2, 2)] * 3 + [(4, 2)] + [(2, 2)] * 7
  assert reconstruction.following(sizes).tolist() == [1, 2, 4, 3, 5, 6, 7, 8, 0, 10, 9]


def test_the_report_shows_curves_scores_and_galleries(workdir):
  call('report', '--workdir', workdir)
  page = (workdir / 'report.html').read_text()
  assert '<h2 id="mosaic">' in page and 'psnr/uint8' in page
  for title in ('Reconstruction', 'Transfer', 'Samples'):
    assert f'{title}: ' in page


def test_files_are_translated(folder, run, workdir, tmp_path):
  images, maps = (
    [folder / 'val' / name / f'0{i}.png' for i in range(2)] for name in ('images', 'labels')
  )
  labels = image(maps[0])
  codes = [run.encode(image(x), image(y)) for x, y in zip(images, maps, strict=True)]
  base = ('translate', maps[0], '--workdir', workdir, '--out', tmp_path)
  style = ('--style', images[1], '--style-labels', maps[1])
  call(*base, *style)
  np.testing.assert_array_equal(image(tmp_path / '00.png'), run.translate(labels, codes[1]))
  call('codes', *images, '--labels', *maps, '--workdir', workdir, '--out', tmp_path / 'codes')
  call(*base, '--style', tmp_path / 'codes/01.npy')
  np.testing.assert_array_equal(image(tmp_path / '00.png'), run.translate(labels, codes[1]))
  call(*base, '--interpolate', *images, '--style-labels', *maps, '--steps', 3)
  between = codes[0].interpolate(codes[1], 0.5)
  np.testing.assert_array_equal(image(tmp_path / '00_01.png'), run.translate(labels, between))
  call(*base, '--sample', 2, '--seed', 5, '--hue', 'red')
  drawn = scores.at(run.draw(2, 5, hue='red'), 1)
  np.testing.assert_array_equal(image(tmp_path / '00_01.png'), run.translate(labels, drawn))
  assert cli.main([*map(str, base), '--sample', '2', '--sampler', 'mapper']) == 2


def test_an_export_runs_with_its_example(folder, run, workdir, tmp_path, monkeypatch):
  call('export', '--workdir', workdir, '--out', tmp_path / 'out')
  maps = np.stack([image(folder / f'val/labels/0{i}.png') for i in range(3)])
  code = run.draw(3)
  for name, array in (('maps', maps), ('colours', code.colours), ('valid', code.valid)):
    np.save(tmp_path / f'{name}.npy', array)
  paths = [str(tmp_path / f'{name}.npy') for name in ('maps', 'colours', 'valid', 'made')]
  monkeypatch.setattr(sys, 'argv', ['load_example.py', 'generate', *paths])
  runpy.run_path(str(tmp_path / 'out' / artefact.EXAMPLE), run_name='__main__')
  made = np.load(paths[-1]).astype(int)
  assert np.abs(made - run.translate(maps, code)).max() <= 1
  manifest = json.loads((tmp_path / 'out/manifest.json').read_text())
  # Running statistics are exported too.
  assert [name for name in manifest['parameters'] if '/batch_stats/' in name]


def test_the_step_is_measured(tmp_path, monkeypatch):
  monkeypatch.setitem(machine._MATRIX, 'cpu', 64)
  monkeypatch.setitem(machine._VECTOR, 'cpu', 2**12)
  monkeypatch.setattr(settings.Settings, 'at_least', 0.0)
  record = tmp_path / 'record.json'
  call('bench', 'mosaic_step', '--repeats', 1, '--width', 4, '--json', record)
  (case,) = json.loads(record.read_text())['cases']
  assert case['items'] == 4 and case['program']['flops'] > 0


def test_the_page_does_what_the_run_does(folder, run, workdir, tmp_path):
  pytest.importorskip('gradio', reason="gradio is missing: pip install -e '.[demo]'")
  from step_jax.demo import page as page_lib

  page = page_lib.Page.open(workdir, 'latest', tmp_path)
  of_result = lambda update: image(update[page.result])
  labels = [image(folder / f'val/labels/0{i}.png') for i in range(3)]
  targets = [image(folder / f'val/images/0{i}.png') for i in range(3)]
  codes = [run.encode(x, y) for x, y in zip(targets, labels, strict=True)]
  update = page.begin(page_lib.Choice())
  np.testing.assert_array_equal(of_result(update), run.translate(labels[0], codes[0]))
  update = page.use_example(update[page.choice], 1, '')
  np.testing.assert_array_equal(of_result(update), run.translate(labels[1], codes[0]))
  update = page.use_upload(update[page.choice], str(folder / 'val/labels/02.png'), '')
  np.testing.assert_array_equal(of_result(update), run.translate(labels[2], codes[0]))
  files = [str(folder / f'val/{name}/01.png') for name in ('images', 'labels')]
  update = page.use_files(update[page.choice], *files, '')
  np.testing.assert_array_equal(of_result(update), run.translate(labels[2], codes[1]))
  with pytest.raises(DataError, match='choose a style image and its labels first'):
    page.use_files(update[page.choice], files[0], None, '')
  shown = page.draw(update[page.choice], 2, 3, 'blue')[page.drawn].value
  assert len(shown) == 2
  drawn = scores.at(run.draw(2, 3, hue='blue'), 1)
  np.testing.assert_array_equal(image(shown[1]['image']['path']), run.translate(labels[2], drawn))
  with socket.socket() as probe:
    probe.bind((server.HOST, 0))
    port = probe.getsockname()[1]
  with server.running(workdir, server.HOST, port) as address:
    with urllib.request.urlopen(f'{address}config') as answer:
      text = answer.read().decode()
  for part in ('label map', 'Its labels', 'hue', 'Draw new styles', 'one colour per label'):
    assert part in text
