"""A mapper is used only with its style encoder, and is never overwritten."""

import json
import shutil

import numpy as np
import pytest
import tiny

import step_jax
from step_jax import report
from step_jax.errors import ConfigError, RunError
from step_jax.evaluate import results
from step_jax.evaluate import session as session_lib
from step_jax.infer import files as infer_files
from step_jax.methods.step import fitted, programs, samplers
from step_jax.train import checkpoint, writers


@pytest.fixture
def copied(trained_run, tmp_path):
  """A copy of the trained run for modification."""
  shutil.copytree(trained_run[0], tmp_path / 'run')
  return tmp_path / 'run'


@pytest.fixture(scope='module')
def gone_on(trained_run, picture_folder, tmp_path_factory):
  """A run with further fine-tuning after the mapper was fitted."""
  workdir = tmp_path_factory.mktemp('gone_on') / 'run'
  shutil.copytree(trained_run[0], workdir)
  tiny.train('finetune', picture_folder, workdir, **{'schedule.total_kimg': 0.04})
  return workdir


def content(folder):
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_the_encoder_is_recorded_with_its_codes(trained_run):
  run = step_jax.load(trained_run[0])
  record = fitted.read(trained_run[0] / 'mapper')
  assert (record.stage, record.step) == ('finetune', 6)
  assert record.digest == fitted.digest(run.params['style_encoder'])
  assert set(run.samplers) == {'mapper', 'gaussian'} and run.fitted_to == record
  np.testing.assert_array_equal(run.codes, np.load(trained_run[0] / 'mapper/codes.npy'))
  np.testing.assert_allclose(run.codes, run._encode_training(), rtol=1e-3, atol=1e-4)


def test_equal_parameters_have_one_digest_and_others_another(trained_run):
  params = step_jax.load(trained_run[0]).params['style_encoder']
  found = fitted.digest(params)
  assert found == fitted.digest({name: params[name] for name in reversed(list(params))})
  bias = np.nextafter(params['mean']['bias'], np.float32(9))
  assert found != fitted.digest({**params, 'mean': {**params['mean'], 'bias': bias}})


def test_every_evaluation_judges_both_samplers(trained_run):
  row = writers.read_metrics(trained_run[0] / 'mapper')[-1]
  for sampler in ('mapper', 'gaussian'):
    for what in ('distance', 'precision', 'energy'):
      assert np.isfinite(row[f'val_{sampler}_{what}'])


def test_the_sampler_is_the_one_with_the_lower_energy_distance(trained_run, monkeypatch, caplog):
  for scores, expected in (((0.1, 0.2), 'mapper'), ((0.2, 0.1), 'gaussian')):
    found = dict(zip(('val_mapper_energy', 'val_gaussian_energy'), scores, strict=True))
    monkeypatch.setattr(checkpoint.Checkpoints, 'scores', lambda self, step, found=found: found)
    run = step_jax.load(trained_run[0])
    caplog.clear()
    np.testing.assert_array_equal(run.draw(4), run.draw(4, sampler=expected))
    assert run.sampler_name == expected
    assert ('worse codes than the Gaussian' in caplog.text) == (expected == 'gaussian')
    # All interfaces use this sampler.
    session = session_lib.open_run(trained_run[0])
    assert session.sampler.name == expected == session.drawn_by['sampler']
    np.testing.assert_allclose(session.draw(4), run.draw(4), rtol=1e-4, atol=1e-5)
    assert any(name.startswith(f'{expected}/') for name in programs.bundle(run, ['cpu']).arrays)
    assert not np.array_equal(run.draw(4, sampler='mapper'), run.draw(4, sampler='gaussian'))
  assert 'lower energy distance' in session.sampling


def test_a_bad_mapper_is_reported_in_training(copied, picture_folder, monkeypatch, caplog):
  monkeypatch.setattr(samplers, 'mapper_wins', lambda scores: False)
  shutil.rmtree(copied / 'mapper')
  tiny.train('mapper', picture_folder, copied)
  assert 'the mapper samples worse codes than the Gaussian' in caplog.text


def test_another_stage_samples_from_the_gaussian_of_its_own_codes(
  trained_run, tmp_path, picture_folder, caplog
):
  folder = trained_run[0] / 'translate'
  run = step_jax.load(folder)
  assert not run.samplers and run.codes is None
  expected = samplers.gaussian(run._encode_training()).draw(5, 0)
  np.testing.assert_allclose(run.draw(5), expected, rtol=1e-3, atol=1e-4)
  with pytest.raises(RunError, match='fitted to the style encoder of finetune at step 6'):
    run.draw(5, sampler='mapper')
  caplog.clear()
  picture = picture_folder / 'val/00.png'
  infer_files.translate(folder, [picture], tmp_path / 'out', sample=2, side_by_side=True)
  assert 'not to that of translate at step 6, so styles are drawn from the Gaussian' in caplog.text
  caplog.clear()
  session = session_lib.open_run(folder)
  np.testing.assert_allclose(session.draw(5), expected, rtol=1e-3, atol=1e-4)
  # The exact text of earlier versions, so that scores stay comparable.
  assert session.sampling == (
    'normal distribution with mean and covariance of the codes of the train targets'
  )
  assert session.drawn_by == {'sampler': 'gaussian'}
  assert 'fitted to the style encoder of finetune at step 6' in caplog.text
  assert set(programs.bundle(run, ['cpu']).programs) == {'encode', 'generate'}


def test_a_mapper_is_not_used_after_further_training_of_its_encoder(gone_on):
  run = step_jax.load(gone_on)
  assert run.step == 10 and not run.samplers
  assert (
    'fitted to the style encoder of finetune at step 6, not to that of finetune at step 10'
    in (run.note)
  )
  assert run.draw(3).shape == (3, 8)
  assert run.note in report.write(gone_on).read_text().replace('&#39;', "'")
  # A mapper belongs to one encoder: the best checkpoint has it only if it is the old one.
  best = step_jax.load(gone_on, 'best')
  assert bool(best.samplers) == (best.step == 6)


def test_a_mapper_is_not_overwritten_for_another_encoder(gone_on, picture_folder):
  before = content(gone_on / 'mapper')
  with pytest.raises(RunError, match='which has changed since .*remove .*mapper, then re-run'):
    tiny.train('mapper', picture_folder, gone_on)
  with pytest.raises(RunError, match='which has changed since'):
    tiny.train('mapper', picture_folder, gone_on, **{'schedule.epochs': 12})
  assert before == content(gone_on / 'mapper')


def test_a_mapper_can_be_fitted_again_after_removing_the_old_one(gone_on, picture_folder, tmp_path):
  shutil.copytree(gone_on, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run/mapper')
  tiny.train('mapper', picture_folder, tmp_path / 'run')
  run = step_jax.load(tmp_path / 'run')
  assert run.fitted_to.step == 10 and set(run.samplers) == {'mapper', 'gaussian'}


def test_scores_of_runs_with_other_encoders_can_be_compared(trained_run, monkeypatch):
  """The protocol has the rule; the score records the selected sampler and the encoder."""
  hashes, drawn_by = set(), []
  for energies in ((0.1, 0.2), (0.2, 0.1)):
    found = dict(zip(('val_mapper_energy', 'val_gaussian_energy'), energies, strict=True))
    monkeypatch.setattr(checkpoint.Checkpoints, 'scores', lambda self, step, found=found: found)
    session = session_lib.open_run(trained_run[0])
    session.run.fitted_to = fitted.Encoder('finetune', 6, str(energies[0]))
    hashes.add(session.protocol('ndb/32', sampler=session.sampling).hash)
    drawn_by.append(session.drawn_by)
  assert len(hashes) == 1 and drawn_by[0] != drawn_by[1]


def test_the_same_encoder_trains_on_and_keeps_its_codes(copied, picture_folder):
  codes = (copied / 'mapper/codes.npy').read_bytes()
  tiny.train('mapper', picture_folder, copied, **{'schedule.epochs': 9})
  assert writers.read_metrics(copied / 'mapper')[-1]['step'] == 9
  assert (copied / 'mapper/codes.npy').read_bytes() == codes
  # Codes of another encoder, left by an earlier version.
  np.save(copied / 'mapper/codes.npy', np.ones((24, 8), np.float32))
  with pytest.raises(RunError, match='not the codes that the mapper was fitted to.*re-run'):
    step_jax.load(copied)
  tiny.train('mapper', picture_folder, copied, **{'schedule.epochs': 9})
  np.testing.assert_allclose(
    step_jax.load(copied).codes, np.load(copied / 'mapper/codes.npy'), rtol=1e-6
  )


def test_an_unfinished_mapper_is_not_used(copied, monkeypatch):
  monkeypatch.setattr(checkpoint.Checkpoints, 'scores', lambda self, step: {})
  run = step_jax.load(copied)
  assert run.sampler_name == 'gaussian' and 'interrupted' in run.note


def test_a_mapper_of_an_earlier_version(copied, picture_folder):
  """Without a record, it is used only for the stage that it would have been fitted to."""
  (copied / 'mapper/encoder.json').unlink()
  run = step_jax.load(copied)
  assert (
    run.sampler_name == 'mapper' and 'is assumed to be fitted to finetune at step 6' in run.note
  )
  assert session_lib.open_run(copied).sampling == 'mapper'
  for other in (step_jax.load(copied / 'translate'), step_jax.load(copied, 'best')):
    assert not other.samplers and 'does not record its style encoder' in other.note
  before = content(copied / 'mapper')
  with pytest.raises(RunError, match='does not record its style encoder: use it unchanged, or rem'):
    tiny.train('mapper', picture_folder, copied)
  assert before == content(copied / 'mapper')


def test_samples_of_earlier_versions_do_not_change(copied):
  """A configuration without `imle.standardize` uses unscaled codes."""
  expected = step_jax.load(copied)
  settings = json.loads((copied / 'mapper/config.json').read_text())
  del settings['imle']['standardize']
  (copied / 'mapper/config.json').write_text(json.dumps(settings))
  found = step_jax.load(copied)
  offset, scale = expected.codes.mean(axis=0), expected.codes.std(axis=0)
  np.testing.assert_allclose(
    found.draw(9, sampler='mapper') * scale + offset, expected.draw(9, sampler='mapper'),
    rtol=1e-3, atol=1e-4,
  )  # fmt: skip


def test_without_a_mapper_the_gaussian_draws(copied, caplog):
  shutil.rmtree(copied / 'mapper')
  run = step_jax.load(copied)
  assert run.draw(2).shape == (2, 8)
  assert 'no mapper is trained yet, so styles are drawn from the Gaussian' in caplog.text
  assert f'step-jax train mapper --workdir {copied}' in run.note


def test_damaged_records_are_named(copied):
  for text in ('', '[]', '{"stage": "finetune"}', '{"stage": 3, "step": 6, "digest": "x"}'):
    (copied / 'mapper/encoder.json').write_text(text)
    with pytest.raises(RunError, match='encoder.json: is damaged .*train the mapper again'):
      step_jax.load(copied)


def from_scratch(folder, workdir, **fields):
  """A run with only the stage `translate`, and the settings of its mapper."""
  tiny.train('translate', folder, workdir, init_from='', **fields)
  return {'init_from': 'translate', **fields}


def test_codes_of_one_dimension(picture_folder, tmp_path):
  settings = from_scratch(picture_folder, tmp_path, **{'model.z_dim': 1})
  tiny.train('mapper', picture_folder, tmp_path, **settings)
  run = step_jax.load(tmp_path)
  for how in samplers_of(run):
    assert run.draw(5, sampler=how).shape == (5, 1)
  found = results.evaluate(tmp_path, groups=['reconstruction'])
  assert 'psnr/uint8' in found['scores']


def samplers_of(run):
  assert set(run.samplers) == {'mapper', 'gaussian'}
  return run.samplers


def test_a_single_training_code(picture_folder, tmp_path):
  folder = tmp_path / 'pictures'
  for split, count in (('train', 1), ('val', 2)):
    (folder / split).mkdir(parents=True)
    for path in sorted((picture_folder / split).iterdir())[:count]:
      shutil.copy(path, folder / split)
  settings = from_scratch(folder, tmp_path / 'run', batch_size=1)
  run = step_jax.load(tmp_path / 'run')
  alone = run.draw(3)
  tiny.train('mapper', folder, tmp_path / 'run', **settings)
  run = step_jax.load(tmp_path / 'run')
  np.testing.assert_allclose(run.draw(3, sampler='gaussian'), alone, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(run.draw(3, sampler='mapper'), alone, rtol=1e-3, atol=1e-4)
  found = results.evaluate(tmp_path / 'run', groups=['reconstruction'])
  assert 'psnr/uint8' in found['scores']


def test_a_run_without_styles_needs_no_mapper(picture_folder, tmp_path):
  settings = from_scratch(picture_folder, tmp_path, **{'model.z_dim': 0, 'loss.z_l2': 0.0})
  with pytest.raises(ConfigError, match='no mapper: train the stage translate alone'):
    tiny.train('mapper', picture_folder, tmp_path, **settings)
  with pytest.raises(RunError, match='has no styles .*use it without a mapper'):
    tiny.train('mapper', picture_folder, tmp_path, **{**settings, 'model.z_dim': 8})
  run = step_jax.load(tmp_path)
  assert run.note == ''
  with pytest.raises(RunError, match='no styles to draw .*any image as its style'):
    run.draw(2)
  with pytest.raises(ConfigError, match='no style encoder to pre-train'):
    tiny.train('pretrain', picture_folder, tmp_path / 'other', **{'model.z_dim': 0})
