"""Preparation of a run for the page: its images and codes, and uploaded images."""

import re
import shutil
import socket
import sys

import numpy as np
from PIL import Image
import pytest

from step_jax import data, demo
from step_jax.demo import server
from step_jax.errors import DataError, RunError
from step_jax.methods.step import run as step_run
from step_jax.methods.step import samplers
from step_jax.methods.step.page import run_pictures, studio

pytest.importorskip('sklearn', reason="sklearn is missing: pip install -e '.[demo]'")


@pytest.fixture(scope='module')
def opened(trained_run):
  return studio.open_run(trained_run[0])


@pytest.fixture(scope='module')
def without_mapper(trained_run, tmp_path_factory):
  folder = tmp_path_factory.mktemp('without') / 'run'
  shutil.copytree(trained_run[0], folder, ignore=shutil.ignore_patterns('mapper'))
  return studio.open_run(folder)


@pytest.fixture(scope='module')
def halves(picture_folder):
  """Sources and targets of a split, by the order of their files."""

  def load(split):
    pictures = [np.asarray(Image.open(path)) for path in sorted((picture_folder / split).iterdir())]
    return [picture[:, :20] for picture in pictures], [picture[:, 20:] for picture in pictures]

  return load


def test_pictures_belong_to_their_codes(opened, halves):
  found = opened.pictures
  sources, _ = halves('val')
  _, targets = halves('train')
  np.testing.assert_array_equal(found.inputs, sources)
  np.testing.assert_array_equal(found.thumbnails, targets)
  np.testing.assert_allclose(
    found.codes, [opened.encode(picture) for picture in targets], rtol=1e-3, atol=1e-4
  )
  assert found.names[3].startswith('3: ') and not found.problem


def test_some_of_many_styles_are_the_same_ones_every_time(opened):
  few = run_pictures.load(opened.translator, inputs=2, styles=5)
  assert len(few.inputs) == 2 and len(few.codes) == len(few.names) == len(few.thumbnails) == 5
  again = run_pictures.load(opened.translator, inputs=2, styles=5)
  assert few.names == again.names
  for name, code in zip(few.names, few.codes, strict=True):
    np.testing.assert_array_equal(code, opened.pictures.codes[int(name.split(':')[0])])


def test_without_a_mapper_styles_are_encoded_and_drawn_like_them(without_mapper, opened):
  codes = without_mapper.pictures.codes
  np.testing.assert_allclose(codes, opened.pictures.codes, rtol=1e-3, atol=1e-4)
  assert without_mapper.style_map is not None
  np.testing.assert_array_equal(
    without_mapper.new_styles(2, 3), samplers.gaussian(codes).draw(2, 3)
  )
  note = without_mapper.translator.note
  assert re.search(r'from the Gaussian.*step-jax train mapper --workdir .*run', note)


def test_without_a_mapper_and_data_the_remedy_is_reported(without_mapper):
  nothing = run_pictures.RunPictures([], np.zeros((0, 8), np.float32), [], [])
  empty = studio.Studio(without_mapper.workdir, without_mapper.translator, nothing)
  with pytest.raises(RunError, match='step-jax train mapper --workdir .*run'):
    empty.new_styles(2, 0)


def test_without_the_data_there_are_only_codes(opened, monkeypatch, trained_run):
  def missing(*_):
    raise DataError('pictures: no such folder')

  monkeypatch.setattr(data, 'open_data', missing)
  found = studio.open_run(trained_run[0])
  assert 'no such folder' in found.pictures.problem and not found.pictures.inputs
  np.testing.assert_array_equal(found.pictures.codes, opened.pictures.codes)
  assert found.style_map is not None and not found.palette
  assert found.input_size == (16, 16)
  found.warm_up()


def test_other_data_than_in_training_is_reported(opened, monkeypatch):
  translator = step_run.Translator(opened.translator.config, 0, {}, codes=np.zeros((7, 8)))
  translator.folder = opened.translator.folder
  found = run_pictures.load(translator)
  assert 'has 24 training pictures, the run was trained on 7' in found.problem


def test_a_run_that_cannot_translate_is_reported(tmp_path):
  with pytest.raises(RunError, match='has no trained generator'):
    studio.open_run(tmp_path)


def test_new_styles_are_of_their_seed(opened):
  assert opened.new_styles(3, 1).shape == (3, 8)
  np.testing.assert_array_equal(opened.new_styles(3, 1), opened.new_styles(3, 1))
  assert not np.array_equal(opened.new_styles(3, 1), opened.new_styles(3, 2))
  source = opened.pictures.inputs[0]
  assert [picture.shape for picture in opened.in_styles(source, opened.new_styles(2, 0))] == [
    source.shape
  ] * 2


def test_pictures_of_any_size_are_read(opened, tmp_path):
  rng = np.random.default_rng(0)
  for i, (height, width) in enumerate([(19, 33), (2100, 700)]):
    path = tmp_path / f'{i}.png'
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    picture = opened.read(path)
    # Unchanged, unless it is so large that memory could run out.
    assert picture.shape == ((19, 33, 3) if i == 0 else (1024, 341, 3))
    if i == 0:
      assert opened.translate(picture, opened.encode(picture)).shape == picture.shape


def test_images_are_resized_as_in_training(opened, tmp_path, monkeypatch):
  config = opened.translator.config.copy_and_resolve_references()
  config.data.resize = 16
  monkeypatch.setattr(opened.translator, 'config', config)
  Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(tmp_path / 'wide.png')
  assert opened.read(tmp_path / 'wide.png').shape == (16, 32, 3)


def test_files_that_are_not_images_are_reported_by_name(opened, tmp_path):
  (tmp_path / 'notes.png').write_text('no picture')
  with pytest.raises(DataError, match='^notes.png: cannot be read as an image'):
    opened.read(tmp_path / 'notes.png')


def test_sizes_are_compiled_for_once(opened):
  source = opened.pictures.inputs[0][:8, :8]
  assert opened.is_new('translate', source)
  opened.translate(source, opened.first_codes()[0])
  assert not opened.is_new('translate', source) and opened.is_new('encode', source)


def test_access_to_the_page():
  assert server.is_local('127.0.0.1') and server.is_local('localhost') and server.is_local('::1')
  assert not server.is_local('0.0.0.0') and not server.is_local('my-machine')


def test_a_proxy_error_is_one_line(trained_run, monkeypatch):
  pytest.importorskip('gradio', reason="gradio is missing: pip install -e '.[demo]'")
  monkeypatch.setattr('gradio.networking.url_ok', lambda url: False)
  with socket.socket() as probe:
    probe.bind((server.HOST, 0))
    port = probe.getsockname()[1]
  with pytest.raises(RunError, match=f'127.0.0.1:{port}: the page does not answer.*NO_PROXY='):
    server.serve(trained_run[0], port=port)


def test_a_missing_extra_is_one_line(trained_run, monkeypatch):
  monkeypatch.delitem(sys.modules, 'step_jax.methods.step.page.page', raising=False)
  monkeypatch.delattr(demo, 'page', raising=False)  # If another test has imported it.
  monkeypatch.setitem(sys.modules, 'gradio', None)
  with pytest.raises(RunError, match=r"gradio is missing: pip install -e '\.\[demo\]'"):
    server.serve(trained_run[0])
