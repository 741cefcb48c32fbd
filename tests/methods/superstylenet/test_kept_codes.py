"""Style codes of a data set are extracted once, cached, and resumed after an interruption."""

import pathlib

import numpy as np
import pytest

from step_jax.methods.superstylenet import extraction, sample_maps
from step_jax.methods.superstylenet.spse import CODE_SIZE
from step_jax.train import mesh as mesh_lib

LABELS, SIZE = 4, 32


class Examples(list):
  """Examples that count reads."""

  reads = 0

  def __getitem__(self, index):
    Examples.reads += 1
    return super().__getitem__(index)


class Dataset:
  """Three images with label maps, like a prepared data set."""

  folder, fingerprint, splits = pathlib.Path('regions'), 'three', {'train': 3}

  def split(self, name):
    rows = []
    for seed in range(self.splits[name]):
      image, labels = sample_maps.street(40, seed, patches=12)
      rows.append({'B': image, 'labels': labels % LABELS})
    return Examples(rows)


@pytest.fixture
def kept(monkeypatch):
  monkeypatch.setattr(extraction, '_IN_FILE', 2)
  return extraction.keep(Dataset(), 'train', 'B', LABELS, SIZE, mesh_lib.make_mesh())


def test_codes_are_those_of_the_images(kept, caplog, monkeypatch):
  assert len(kept) == 3
  extractor = extraction.Extractor(LABELS, SIZE)
  for index, example in enumerate(Dataset().split('train')):
    codes, valid = extractor(example['B'], example['labels'])
    assert codes.shape == (LABELS, CODE_SIZE) and valid.all()
    assert not caplog.messages
    np.testing.assert_allclose(kept[index].codes, codes, atol=1e-6)
    np.testing.assert_array_equal(kept[index].valid, valid)
  # A region without a code is reported with its reason; a label absent from the image is not.
  labels = np.zeros((SIZE, SIZE), int)
  labels[3, 3], labels[5, 5:8] = 1, 2
  assert extractor(np.zeros((SIZE, SIZE, 3), np.uint8), labels).valid.tolist() == [True] + 3 * [
    False
  ]
  assert caplog.messages == [
    'label 1 has no code: the region is a single pixel',
    'label 2 has no code: the region has too few superpixels for a code',
  ]
  mean = kept.mean()
  np.testing.assert_allclose(mean.codes, kept.some(9, 0).codes.mean(axis=0), atol=1e-6)
  with pytest.raises(IndexError):
    kept[3]
  # Unfinished and damaged files are recomputed; others are kept.
  folder = kept._folder
  whole = [(folder / f'0000{n}.npy').read_bytes() for n in (0, 1)]
  (folder / '00001.npy').unlink()
  (folder / '00001.npy').write_bytes(whole[1][:500])
  Examples.reads = 0
  again = extraction.keep(Dataset(), 'train', 'B', LABELS, SIZE, mesh_lib.make_mesh())
  assert 0 < Examples.reads <= 2
  assert [(folder / f'0000{n}.npy').read_bytes() for n in (0, 1)] == whole
  np.testing.assert_array_equal(again[2].codes, kept[2].codes)
  monkeypatch.setattr(extraction, '_extract_files', lambda *args: None)
  other = extraction.keep(Dataset(), 'train', 'B', LABELS, 16, mesh_lib.make_mesh())
  assert other._folder != folder


def test_the_bank_of_a_run(kept, tmp_path):
  some, mean = kept.some(2, 0), kept.mean()
  extraction.write_bank(tmp_path / 'codes.npz', some, mean)
  bank = extraction.read_bank(tmp_path / 'codes.npz', LABELS)
  for written, read in zip((some, mean), bank, strict=True):
    np.testing.assert_array_equal(written.codes, read.codes)
    np.testing.assert_array_equal(written.valid, read.valid)


def test_images_become_squares():
  image, labels = np.zeros((20, 10, 3), np.uint8), np.arange(200).reshape(20, 10) % 3
  fitted = extraction.fit(image, labels, 20)
  assert fitted['image'].shape == (20, 20, 3)
  np.testing.assert_array_equal(fitted['labels'], np.repeat(labels, 2, axis=1))
  with pytest.raises(ValueError, match='its label map'):
    extraction.fit(image[:10], labels, 20)
