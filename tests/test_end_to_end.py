"""The four stages on an image folder, with the commands of a user."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
from PIL import Image
import pytest
import tiny

from step_jax import config as config_lib
from step_jax import report
from step_jax.evaluate import results
from step_jax.train import checkpoint, writers

ROOT = pathlib.Path(__file__).parent.parent


def test_every_stage_leaves_a_whole_folder(trained_run):
  workdir, _ = trained_run
  for stage in tiny.STAGES:
    folder = workdir / stage
    assert config_lib.read(folder).stage == stage
    assert checkpoint.exists(folder)
    rows = writers.read_metrics(folder)
    assert [row['step'] for row in rows] == sorted(row['step'] for row in rows)
    assert rows[-1]['step'] == 6
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert list((folder / 'tensorboard').iterdir())
  for name in ('val_psnr', 'val_psnr_other', 'val_l1', 'val_perceptual'):
    assert name in writers.read_metrics(workdir / 'translate')[-1]
  assert 'features=random' in (workdir / 'translate/train.log').read_text()
  assert (workdir / 'pretrain/neighbors_train.npz').is_file()
  assert np.load(workdir / 'mapper/codes.npy').shape == (24, 8)
  with Image.open(workdir / 'finetune/samples/styles_00000006.png') as grid:
    assert grid.size[0] > 6 * 20 and grid.size[1] > 5 * 16
  leftovers = [path for path in workdir.rglob('*.part*')]
  assert not leftovers


def test_stages_start_from_the_one_before(picture_folder, trained_run, tmp_path):
  """At step 0, the encoder of stage 2 and its averages are those of stage 1."""
  from step_jax.methods.step.stages import translate
  from step_jax.train import run

  workdir, _ = trained_run
  config = tiny.make_config('translate', picture_folder)
  mesh = run.mesh_lib.make_mesh()
  stage = translate.build(config, workdir, mesh)
  state = run._initial_state(
    config, stage, checkpoint.Checkpoints(tmp_path), run._shardings(config, stage, mesh)
  )
  saved = checkpoint.Checkpoints(workdir / 'pretrain', create=False)
  sharding = run.mesh_lib.replicated(mesh)
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    state.params['style_encoder'],
  )
  encoder = saved.restore({'params': {'style_encoder': like}})['params']['style_encoder']
  for tree in (state.params, state.ema):
    same = jax.tree.map(np.array_equal, tree['style_encoder'], encoder)
    assert all(jax.tree.leaves(same))
  assert int(state.step) == 0


def test_all_programs_lower_for_tpus_and_gpus(programs):
  """Steps, evaluations, mining and scores, as they were called; tests/scale has other settings."""
  for function, args in programs.values():
    jax.export.export(jax.jit(function), platforms=['tpu', 'cuda'])(*args)
  names = {name for name, *_ in programs}
  of_step = {'.'.join(name.split('.')[2:3]) for name in names if name.startswith('methods.step.')}
  assert {'steps', 'stages', 'mining'} <= of_step, names
  # And `search`, if this test is the first to import it.
  assert {'evaluate', 'methods', 'train'} <= {name.partition('.')[0] for name in names}
  assert len(programs) > 15, names


def test_results_are_named_for_what_they_are(trained_run):
  workdir, _ = trained_run
  found = results.read(workdir / 'finetune')
  assert found['features'] == 'random' and found['step'] == 6
  assert len(found['pictures']) == 5
  for name in (
    'psnr/uint8',
    'perceptual-random-squeezenet1_1/native',
    'psnr-other-style/uint8',
    'lpips-squeeze-0.1~caffe-squeezenet/256',
  ):
    score = found['scores'][name]
    assert len(score['values']) == 5
    np.testing.assert_allclose(np.mean(score['values']), score['value'], rtol=1e-6)
  assert 'features=random' in results.table(found)


def test_report_is_one_file_that_opens_offline(trained_run):
  workdir, _ = trained_run
  page = report.write(workdir).read_text()
  for stage in tiny.STAGES:
    assert '<svg' in page.split(f'<h2 id="{stage}">')[1].split('<h2')[0]
  assert page.count('data:image/webp') >= 4
  # Scores with their intervals come first, also on a phone.
  assert '<meta name="viewport" content="width=device-width' in page
  assert page.index('psnr/uint8') < page.index('<img') < page.index('<svg')
  assert 'features=random: the scores named random' in page
  score = results.find(workdir)['scores']['psnr/uint8']
  low, high = score['interval']
  for text in ('psnr/uint8', score['hash'], f'{score["value"]:.4f}', f'[{low:.4f}, {high:.4f}]'):
    assert text in page
  for outside in ('http://', 'https://', 'src="/', 'href="/'):
    body = page.replace('http://www.w3.org/', '').replace('http://purl.org/', '')
    body = body.replace('http://creativecommons.org/', '').replace('https://matplotlib.org/', '')
    assert outside not in body, outside


@pytest.mark.parametrize('stage', tiny.STAGES)
def test_no_field_is_dead(trained_run, stage, picture_folder):
  """Every field of every stage's configuration is read by training, evaluation or translation."""
  _, read = trained_run
  fields = {name for name, _ in config_lib.flatten(tiny.make_config(stage, picture_folder))}
  by_name = {'arg', 'stage'}  # `arg` is read by `config.following`.
  assert fields - read[stage] - by_name == set()


def start(stage, folder, workdir, *fields):
  config = tiny.make_config(stage, folder)
  set_fields = {**dict(config_lib.flatten(config)), 'every.log': 1, 'every.evaluate': 8}
  set_fields |= {'schedule.total_kimg': 0.08, 'schedule.fixed_kimg': 0.04, 'init_from': ''}
  arguments = [
    f'--config.{name}={value}'
    for name, value in set_fields.items()
    if name not in ('arg', 'stage', 'method') and not (isinstance(value, tuple) and not value)
  ]
  return subprocess.Popen(
    [sys.executable, '-m', 'step_jax.main', f'--config={config_lib.stage_file(stage)}']
    + [f'--workdir={workdir}', *arguments, *fields],
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )


def finish(process):
  _, errors = process.communicate(timeout=300)
  assert process.returncode == 0, errors[-3000:]
  return errors


def arrays(folder):
  """All arrays of the latest checkpoint."""
  import orbax.checkpoint as ocp

  latest = checkpoint.Checkpoints(folder, create=False).latest
  path = (folder / 'checkpoints' / str(latest) / 'state').absolute()
  return latest, ocp.PyTreeCheckpointer().restore(path)


def test_a_killed_run_ends_like_an_uninterrupted_one(picture_folder, tmp_path):
  """SIGKILL twice, then the same command again: parameters are bit-equal."""
  for kill_after in (3, 9):
    process = start('translate', picture_folder, tmp_path / 'killed')
    checkpoints = tmp_path / 'killed/translate/checkpoints'
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
      steps = [int(p.name) for p in checkpoints.glob('*') if p.name.isdigit()]
      if steps and max(steps) >= kill_after:
        break
      time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1][-3000:]
    process.send_signal(signal.SIGKILL)
    process.wait()
  # Started after the others, so that it finds their compiled programs.
  whole = start('translate', picture_folder, tmp_path / 'whole')
  errors = finish(start('translate', picture_folder, tmp_path / 'killed'))
  assert 'steps 1 to' not in errors and 'steps ' in errors
  finish(whole)
  step, expected = arrays(tmp_path / 'whole/translate')
  again, found = arrays(tmp_path / 'killed/translate')
  assert step == again == 20
  same = jax.tree.map(np.array_equal, expected, found)
  assert all(jax.tree.leaves(same)), same
  # The logs agree too: every step once, with the same losses.
  rows = [
    [
      {name: value for name, value in row.items() if name != 'images_per_second'}
      for row in writers.read_metrics(tmp_path / name / 'translate')
    ]
    for name in ('whole', 'killed')
  ]
  assert json.dumps(rows[0]) == json.dumps(rows[1])


def test_a_finished_stage_is_not_changed(picture_folder, trained_run):
  workdir, _ = trained_run
  before = (workdir / 'translate/metrics.jsonl').read_text()
  tiny.train('translate', picture_folder, workdir)
  assert (workdir / 'translate/metrics.jsonl').read_text() == before
