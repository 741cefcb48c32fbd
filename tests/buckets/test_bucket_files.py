"""Files in a bucket: valid addresses, and atomic writes."""

import importlib.util
import pathlib

import numpy as np
from PIL import Image
import pytest

from step_jax import config as config_lib
from step_jax import data, files, places, untrusted
from step_jax.data import builder, folders, pairs, pictures
from step_jax.data.labels import Labels
from step_jax.errors import ConfigError, DataError, RunError
from step_jax.evaluate import results


@pytest.mark.parametrize(
  'address', ['gs://bucket/run', 'gs://bucket/run/', pathlib.Path('gs://bucket/run')]
)
def test_an_address_is_not_a_folder(address, bucket):
  path = files.path(address)
  assert str(path) == 'gs://bucket/run' and files.in_bucket(path)
  assert str(files.join(path, 'mapper')) == 'gs://bucket/run/mapper'
  assert str(files.join(path, '../other/mapper')) == 'gs://bucket/other/mapper'
  assert files.join(path, '/runs/mapper') == pathlib.Path('/runs/mapper')
  assert str(files.join(pathlib.Path('run'), 'gs://bucket/x')) == 'gs://bucket/x'
  assert not files.in_bucket(files.path('runs/gs/mine'))


@pytest.mark.parametrize(
  ('address', 'told'), [('s3://bucket/run', 'only folders and gs://'), ('gs://', 'names no bucket')]
)
def test_other_addresses_are_refused(address, told):
  with pytest.raises(RunError, match=told):
    files.path(address)


def test_missing_libraries_are_reported(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(RunError, match=r"pip install -e '\.\[gcs\]'"):
    files.path('gs://bucket/run')
  assert files.path('runs/mine') == pathlib.Path('runs/mine')


@pytest.mark.parametrize(
  ('variable', 'place'), [('STEP_JAX_CACHE', places.cache), ('STEP_JAX_WEIGHTS', places.weights)]
)
def test_local_folders_cannot_be_buckets(variable, place, monkeypatch):
  monkeypatch.setenv(variable, 'gs://bucket/cache')
  with pytest.raises(ConfigError, match=f'{variable}=gs://bucket/cache: must be a folder'):
    place()


def test_a_failed_write_is_one_line_and_keeps_the_old_file(bucket):
  path = files.path('gs://bucket/run/report.html')
  files.write_text(path, 'before')
  bucket.refuse = lambda method, name, query: 403 * (method in ('POST', 'PUT'))
  with pytest.raises(RunError, match='cannot be used .*Forbidden') as error:
    files.write_text(path, 'after')
  assert '\n' not in str(error.value)
  assert bucket.read('run/report.html') == b'before'
  with pytest.raises(RunError, match='the bucket does not exist'):
    files.write_text(files.path('gs://missing/run/report.html'), 'after')
  with pytest.raises(FileNotFoundError):
    files.readable(files.path('gs://bucket/run/none.npy'))


def test_a_large_file_is_written_atomically(bucket):
  """For any number of requests; a killed process leaves the upload unfinished."""
  path = files.path('gs://bucket/run/codes.npy')
  array = np.arange(3_000_000, dtype=np.float32)
  sent = []

  def refuse(method, name, query):
    if method in ('POST', 'PUT'):
      sent.append('run/codes.npy' in bucket.objects)
    return 0

  bucket.refuse = refuse
  files.write_array(path, array)
  assert sent and not any(sent)
  assert np.array_equal(np.load(files.readable(path)), array)


def test_untrusted_arrays_are_read_from_buckets_as_from_disks(bucket):
  arrays = {'a': np.arange(300), 'b': np.float32([[1, 2]])}
  one, many = files.path('gs://bucket/run/a.npy'), files.path('gs://bucket/run/ab.npz')
  files.write_array(one, arrays['a'])
  files.write_arrays(many, arrays)
  assert untrusted.npy_type(one, '') == ((300,), np.int64)
  assert np.array_equal(untrusted.read_arrays(one, '')[''], arrays['a'])
  found = untrusted.read_arrays(many, '')
  assert set(found) == {'a', 'b'} and np.array_equal(found['b'], arrays['b'])
  read = (lambda: untrusted.read_arrays(one, 'mend'), lambda: untrusted.npy_type(one, 'mend'),
          lambda: untrusted.read_arrays(many, 'mend'))  # fmt: skip
  bucket.refuse = lambda method, name, query: 403 * (method == 'GET')
  for action in read:
    with pytest.raises(RunError, match='the bucket cannot be used'):
      action()
  bucket.refuse = lambda method, name, query: 0
  for path in (one, many):
    name = f'run/{path.name}'
    bucket.put(name, bucket.read(name)[:-30])
  for action in read:
    with pytest.raises(RunError, match=r'gs://bucket/run/ab?.np[yz]: is damaged .* mend'):
      action()


def test_untrusted_text_is_read_from_buckets_as_from_disks(bucket):
  folder = files.path('gs://bucket/run/translate')
  for name, read in ((config_lib.FILE, config_lib.read), (results.FILE, results.read)):
    for content in (b'[' * 100_000, b'\xff', b'[]'):
      bucket.put(f'run/translate/{name}', content)
      with pytest.raises(RunError, match=f'{folder}/{name}: is damaged'):
        read(folder)


def test_untrusted_images_are_read_from_buckets_as_from_disks(bucket, picture_folder):
  bucket.put('pictures/a.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit\n')
  with pytest.raises(DataError, match='gs://bucket/pictures/a.png: cannot be read as an image'):
    pictures.read_picture('gs://bucket/pictures/a.png')
  bucket.put('pictures/a\x1b[2J.png', b'')
  with pytest.raises(DataError, match='control characters in its name') as error:
    folders.scan('gs://bucket/pictures', 'unpaired')
  assert str(error.value).isprintable()


@pytest.mark.parametrize('name', ['../../../over.txt', 'x/../../../over.txt', '\x1b[2J/../../x'])
def test_a_copy_of_a_bucket_stays_in_its_folder(name, bucket, tmp_path):
  bucket.put('sets/mine/dataset_info.json', b'{}')
  bucket.put(f'sets/mine/{name}', b'from a stranger')
  cache = tmp_path / 'a/b/cache'
  with pytest.raises(RunError, match='leads out of gs://bucket/sets/mine') as error:
    pairs.fetch(files.path('gs://bucket/sets/mine'), cache)
  assert str(error.value).isprintable()
  assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def upload(folder: pathlib.Path, bucket, to: str) -> None:
  for file in folder.rglob('*.png'):
    bucket.put(f'{to}/{file.relative_to(folder).as_posix()}', file.read_bytes())


def test_pictures_of_a_bucket_are_those_of_the_folder(bucket, picture_folder):
  upload(picture_folder, bucket, 'pictures')
  bucket.put('pictures/train/.hidden/00.png', b'')
  here, there = folders.scan(picture_folder), folders.scan('gs://bucket/pictures')
  for split in ('train', 'val'):
    names = [[example.name for example in found.splits[split]] for found in (here, there)]
    assert names[0] == names[1]
  ours, theirs = here.splits['val'][0].load(), there.splits['val'][0].load()
  assert np.array_equal(ours['A'], theirs['A']) and np.array_equal(ours['B'], theirs['B'])
  # A different image of the same size and name.
  content = bucket.read('pictures/train/00.png')
  bucket.put('pictures/train/00.png', content)
  assert folders.scan('gs://bucket/pictures').fingerprint != there.fingerprint


def test_two_folders_of_a_bucket(bucket, picture_folder):
  for side in 'AB':
    upload(picture_folder / 'train', bucket, f'pictures/train/{side}')
  found = folders.scan('gs://bucket/pictures')
  assert found.layout == 'two_folders'
  assert len(found.splits['train']) + len(found.splits['val']) == 24
  with pytest.raises(DataError, match='no such folder'):
    folders.scan('gs://bucket/elsewhere')


def test_label_maps_and_arrays_of_a_bucket(bucket, picture_folder, tmp_path):
  upload(picture_folder / 'val', bucket, 'faces/images')
  for i in range(5):
    Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / 'map.png')
    bucket.put(f'faces/labels/{i:02d}.png', (tmp_path / 'map.png').read_bytes())
    np.save(tmp_path / 'code.npy', np.full(3, i))
    bucket.put(f'faces/codes/{i:02d}.npy', (tmp_path / 'code.npy').read_bytes())
  found = folders.scan('gs://bucket/faces', labels=Labels('index', 5))
  assert found.layout == 'images_labels' and found.arrays == {'codes': (3,)}
  for example in (example for examples in found.splits.values() for example in examples):
    loaded, number = example.load(), int(example.name[-6:-4])
    assert (loaded['labels'] == number).all() and (loaded['codes'] == number).all()


def test_a_prepared_set_in_a_bucket(bucket, picture_folder, tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_CACHE', str(tmp_path / 'cache'))
  out = files.path('gs://bucket/sets/mine')
  # An upload that stops before the last file does not count as a data set.
  bucket.refuse = lambda method, name, query: 403 * name.endswith('dataset_info.json')
  with pytest.raises(RunError, match='cannot be used'):
    builder.prepare_in_bucket(folders.scan(picture_folder), out)
  bucket.refuse = lambda method, name, query: 0
  assert bucket.names('sets/mine') and not pairs.is_prepared(out)
  bucket.remove('sets')
  builder.prepare_in_bucket(folders.scan(picture_folder), out)
  with pytest.raises(DataError, match='is not empty'):
    builder.prepare_in_bucket(folders.scan(picture_folder), out)
  found, expected = data.open_data(str(out)), data.open_data(str(picture_folder))
  assert found.splits == expected.splits and found.fingerprint == expected.fingerprint
  assert np.array_equal(found.split('val')[4]['B'], expected.split('val')[4]['B'])
  # Copied once.
  bucket.refuse = lambda method, name, query: 403 * ('array_record' in name)
  assert data.open_data(str(out)).folder == found.folder
