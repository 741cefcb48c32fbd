"""Scores of a whole run: content of the file, and reproducibility."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import step_jax
from step_jax.errors import ConfigError, RunError
from step_jax.evaluate import compare, lpips, protocols, results
from step_jax.evaluate.protocols import GROUPS, PROTOCOLS

ROOT = pathlib.Path(__file__).parents[2]


def test_every_group_is_measured_and_names_its_protocols(scored_run):
  workdir, found = scored_run
  assert found == results.find(workdir) == results.read(workdir / 'finetune')
  assert {score['group'] for score in found['scores'].values()} == set(GROUPS)
  assert set(found['skipped']) == {'probe', 'NDB and JSD'}
  assert found['data']['split'] == 'val' and found['seed'] == 0 and found['step'] == 6
  assert found['versions']['step_jax'] == step_jax.__version__
  for name in ('', '-diversity-bicyclegan'):
    name = f'lpips-squeeze-0.1~caffe-squeezenet{name}/256'
    assert found['scores'][name]['definition']['weights'].count(' ') == 1
  # The run's net has random weights, which the names of the scores state; the bundled net is
  # trained.
  assert 'frechet-squeezenet1_1/224-clean' in found['scores']
  assert 'perceptual-random-squeezenet1_1/native' in found['scores']
  assert not any('fid' in name for name in found['scores'])
  assert found['scores']['frechet-squeezenet1_1/224-clean']['interval'] is None
  for score in found['scores'].values():
    assert '5 of val, pixels ' in score['definition']['data']
    assert np.isfinite(score['value'])
    if score['values']:
      assert len(score['values']) == len(found['pictures']) == 5
      low, high = score['interval']
      assert low <= score['value'] <= high
      np.testing.assert_allclose(score['value'], np.mean(score['values']))


def test_scores_are_those_of_the_saved_pictures(scored_run, picture_folder):
  """Computed again without the evaluation: PNG files, the public API, and NumPy."""
  workdir, found = scored_run
  run = step_jax.load(workdir)
  learned = lpips.load('squeeze')
  expected = {'psnr/uint8': [], 'l1/uint8': [], f'{learned.name}/256': []}
  for i in range(5):
    pair = np.asarray(Image.open(picture_folder / f'val/{i:02d}.png'))
    source, target = pair[:, :20], pair[:, 20:]
    output = run.translate(source, style=target)
    error = output.astype(float) - target
    expected['psnr/uint8'].append(10 * np.log10(255**2 / np.mean(error**2)))
    expected['l1/uint8'].append(np.mean(abs(error)) / 255)
    # Pillow's bicubic in uint8, then [-1, 1]: other resizers and ranges give other distances.
    large = [
      Image.fromarray(x).resize((256, 256), Image.Resampling.BICUBIC) for x in (output, target)
    ]
    taps = [learned.features(learned.params, np.asarray(x)[None]) for x in large]
    expected[f'{learned.name}/256'].append(learned.compare(learned.params, *taps)[0])
  for name, values in expected.items():
    # One pixel in a thousand may round the other way in a batch of another size.
    np.testing.assert_allclose(found['scores'][name]['values'], values, rtol=1e-3)


def scores(workdir):
  return json.loads((workdir / 'finetune' / results.FILE).read_text())


def test_numbers_are_the_same_on_eight_devices(scored_run, tmp_path):
  """Bit-equal with the same number of threads, on which the order of sums depends on CPUs."""
  workdir, _ = scored_run
  for devices in (1, 8):
    again = tmp_path / str(devices)
    shutil.copytree(workdir, again)
    (again / 'finetune' / results.FILE).unlink()
    flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
    code = (
      'import tiny; from step_jax import cli\n'
      f'with tiny.score_at(64, 64): assert cli.main(["evaluate", "--workdir", {str(again)!r}]) == 0'
    )
    path = os.pathsep.join([str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')])
    subprocess.run(
      [sys.executable, '-c', code],
      check=True,
      cwd=ROOT,
      env={
        **os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags, 'NPROC': '8'
      },
    )  # fmt: skip
  assert scores(tmp_path / '1') == scores(tmp_path / '8')


def test_groups_and_split_are_a_choice(scored_run, tmp_path, empty_store):
  workdir = tmp_path / 'run'
  shutil.copytree(scored_run[0], workdir)
  (workdir / 'finetune' / results.FILE).unlink()
  found = results.evaluate(workdir, groups=['reconstruction'])
  assert {score['group'] for score in found['scores'].values()} == {'reconstruction'}
  # This store has only the bundled weights.
  assert 'lpips-squeeze-0.1~caffe-squeezenet/256' in found['scores']
  with pytest.raises(ConfigError, match="'speed'; there are reconstruction, style"):
    results.evaluate(workdir, groups=['speed'])
  # Two evaluations agree bit for bit, except for LPIPS, which the tests compute at 64 px.
  for name, score in found['scores'].items():
    if not name.startswith('lpips'):
      assert score == scored_run[1]['scores'][name]
  train = results.evaluate(workdir, split='train', groups=['reconstruction'])
  assert len(train['scores']['psnr/uint8']['values']) == 24
  assert train['scores']['psnr/uint8']['hash'] != found['scores']['psnr/uint8']['hash']
  assert results.find(workdir) == found
  assert results.find(workdir / 'finetune/results-split=train.json') == train


def test_other_data_leave_the_scores_of_the_run(scored_run, picture_folder, tmp_path, empty_store):
  workdir = shutil.copytree(scored_run[0], tmp_path / 'run')
  other = shutil.copytree(picture_folder, tmp_path / 'other')
  (other / 'val/00.png').unlink()
  found = results.evaluate(workdir, path=str(other), groups=['reconstruction'])
  assert len(found['pictures']) == 4 and results.find(workdir) == scored_run[1]
  (file,) = (workdir / 'finetune').glob('results-data=other-????????.json')
  assert results.find(file) == found
  # Another path to the run's own data is recognised as the same data.
  (tmp_path / 'link').symlink_to(picture_folder)
  again = results.evaluate(workdir, path=str(tmp_path / 'link'), groups=['reconstruction'])
  assert set(again['groups']) == set(GROUPS) and results.find(workdir) == again


def test_table_shows_values_and_intervals(scored_run):
  text = results.table(scored_run[1])
  score = scored_run[1]['scores']['psnr/uint8']
  line = next(line for line in text.splitlines() if 'psnr/uint8' in line)
  low, high = score['interval']
  assert f'{score["value"]:.4f} ↑ [{low:.4f}, {high:.4f}]' in line
  assert [line for line in text.splitlines() if line in GROUPS] == list(GROUPS)


def test_numbers_of_other_protocols_do_not_stand_side_by_side(scored_run, tmp_path):
  workdir = scored_run[0]
  same, other = tmp_path / 'same', tmp_path / 'other'
  for folder in (same, other):
    (folder / 'finetune').mkdir(parents=True)
    shutil.copy(workdir / 'finetune' / results.FILE, folder / 'finetune')
  text = compare.compare([workdir, same])
  row = next(line for line in text.splitlines() if line.startswith('psnr/uint8'))
  value = f'{scored_run[1]["scores"]["psnr/uint8"]["value"]:.4f}'
  assert row.count(value) == 2 and '≠' not in text
  found = scores(other)
  changed = found['scores']['psnr/uint8']
  changed['definition']['data'] = '7 of test'
  changed['hash'] = 'something else'
  (other / 'finetune' / results.FILE).write_text(json.dumps(found))
  text = compare.compare([workdir, same, other])
  row = next(line for line in text.splitlines() if line.startswith('psnr/uint8'))
  assert row.count(value) == 2 and row.endswith('≠')
  assert "≠ psnr/uint8: other is not compared with run: data is '7 of test', not '5 of" in text
  assert text.count('≠ ') == 1
  for score in found['scores'].values():
    score['definition']['data'], score['hash'] = '7 of test', 'something else'
  (other / 'finetune' / results.FILE).write_text(json.dumps(found))
  with pytest.raises(RunError, match="data is '7 of test', not '5 of val"):
    compare.compare([workdir, other])


def test_runs_without_results_are_named(scored_run, tmp_path):
  with pytest.raises(RunError, match='has no results: run `step-jax evaluate --workdir'):
    compare.compare([scored_run[0], tmp_path])
  (tmp_path / results.FILE).write_text('{"scores": {"psnr": {"mean": 1.0}}}')
  with pytest.raises(RunError, match='has no results'):
    compare.compare([tmp_path])


def test_page_of_protocols_is_fresh():
  page = (ROOT / 'docs/protocols.md').read_text()
  assert page == protocols.page(), 'run: python -m step_jax.evaluate.protocols > docs/protocols.md'
  assert all(f'### `{name}`' in page for name in PROTOCOLS)


def test_everything_that_affects_a_score_is_in_its_hash():
  protocol = PROTOCOLS['{lpips}/256']
  hashes = [
    protocol.on(facts, lpips=lpips).hash
    for lpips in ('lpips-alex-0.1', 'lpips-alex-0.0')
    for facts in ({'data': 'a'}, {'data': 'b'}, {'data': 'a', 'seed': '1'})
  ]
  assert len(set(hashes)) == len(hashes)
  assert protocol.on({'data': 'a'}, lpips='x').hash == protocol.on({'data': 'a'}, lpips='x').hash


def test_swatches_are_probed_and_binned(trained_run, tmp_path, monkeypatch, empty_store):
  from step_jax.data import swatches

  make = swatches.picture_set
  monkeypatch.setattr(swatches, 'picture_set', lambda size, **options: make(16, train=40, val=20))
  workdir = tmp_path / 'run'
  shutil.copytree(trained_run[0], workdir)
  found = results.evaluate(workdir, path='swatches', groups=['style', 'diversity'])
  assert {f'probe-{factor}' for factor in ('palette', 'texture', 'light')} < set(found['scores'])
  assert '40 of train' in found['scores']['probe-light']['definition']['fitted to']
  assert found['scores']['ndb/32']['definition']['bins'] == '2'
  assert 0 <= found['scores']['jsd/32']['value'] <= np.log(2)


def test_scores_name_their_sampler(scored_run):
  _, found = scored_run
  drawn = [score for score in found['scores'].values() if 'sampler' in score['definition']]
  assert drawn
  for score in found['scores'].values():
    assert ('drawn_by' in score) == ('sampler' in score['definition'])
  for score in drawn:
    assert score['drawn_by']['stage'] == 'finetune' and score['drawn_by']['step'] == 6
    assert len(score['drawn_by']['digest']) == 64


def test_fewer_distinct_images_than_bins_are_reported(trained_run, picture_folder, tmp_path):
  """A data set with copies of one image; other scores are still measured."""
  workdir, data = shutil.copytree(trained_run[0], tmp_path / 'run'), tmp_path / 'data'
  for split, count in (('train', 4), ('val', 20)):
    (data / split).mkdir(parents=True)
    for i in range(count):
      shutil.copy(picture_folder / 'val/00.png', data / split / f'{i:02d}.png')
  found = results.evaluate(workdir, path=str(data), groups=['diversity'])
  assert 'train have 1 different targets at 32 px, and 2 bins' in found['skipped']['NDB and JSD']
