"""Both stages from images to a run: training, resuming, killing, opening."""

import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys

import flax.traverse_util
import jax
import numpy as np
from PIL import Image
import pytest
import tiny

from step_jax import cli, data, methods
from step_jax import config as config_lib
from step_jax.data import swatches
from step_jax.data.labels import Labels
from step_jax.errors import ConfigError, DataError, RunError, UserError
from step_jax.evaluate import metrics, results, segmenter
from step_jax.evaluate import session as session_lib
from step_jax.export import artefact, load_example
from step_jax.methods.psp import (
  functions,
  import_run,
  import_weights,
  inputs,
  irse,
  networks,
  programs,
  published,
  train_psp,
  transforms,
)
from step_jax.methods.psp import run as psp_run
from step_jax.methods.psp import scores as psp_scores
from step_jax.methods.psp.fields import TASKS
from step_jax.methods.psp.stages import psp
from step_jax.train import checkpoint
from step_jax.train import stage as stage_lib

ROOT = pathlib.Path(__file__).parents[3]
FIELDS = {
  **tiny.PSP_FIELDS,
  'optimizer.learning_rate': 1e-3,
  'schedule.total_kimg': 0.032,
  'every.evaluate': 8,
  'eval_pictures': 5,
}


def train(stage, folder, workdir, **fields):
  return tiny.train(stage, folder, workdir, **{**FIELDS, **fields})


def state(folder):
  """The state in the latest checkpoint of a stage, on the host."""
  config = config_lib.read(folder)
  step = methods.abstract_step(config, config.data.crop)
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_place()), step.state
  )
  checkpoints = checkpoint.Checkpoints(folder, create=False)
  try:
    return jax.device_get(checkpoints.restore_newest(like)[1])
  finally:
    checkpoints.close()


def _place():
  return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture(scope='module')
def trained(picture_folder, tmp_path_factory):
  """A run of both stages, and the fields that were read."""
  workdir = tmp_path_factory.mktemp('psp')
  with tiny.record_fields() as read:
    for stage in ('stylegan2', 'psp'):
      train(stage, picture_folder, workdir)
  return workdir, read


def test_every_field_is_read(trained):
  _, read = trained
  # Fields of other encoder types; the first four are read by the loop and by comparisons.
  unread = {'arg', 'method', 'best_metric', 'features.taps', 'model.num_styles'}
  unread |= {'data.factors', 'features.identity', 'features.moco'}
  for stage in ('stylegan2', 'psp'):
    declared = {name for name in config_lib.stage_module(stage).FIELDS}
    kept = declared - read[stage] - unread
    assert kept <= {'features.net', 'features.weights'}, (stage, kept)


@pytest.mark.parametrize('stage', ['stylegan2', 'psp'])
def test_a_resumed_stage_is_the_same(trained, picture_folder, tmp_path, stage):
  """Including moments, slow weights, statistics and means."""
  workdir, _ = trained
  init = {'init_from': str(workdir / 'stylegan2')} if stage == 'psp' else {}
  train(stage, picture_folder, tmp_path, **{'schedule.total_kimg': 0.012, **init})
  folder = train(stage, picture_folder, tmp_path, **init)
  found, expected = state(folder), state(workdir / stage)
  assert int(found.step) == int(expected.step) == 8
  jax.tree.map(np.testing.assert_array_equal, found, expected)


_KILLED = """
import os, signal, sys
sys.path[:0] = ['tests', 'tests/methods/psp']
import test_psp_stages as stages
from step_jax.data import pipeline
batches = pipeline.train_batches
def killing(*args):
  for i, batch in enumerate(batches(*args)):
    if i == 6:
      os.kill(os.getpid(), signal.SIGKILL)
    yield batch
pipeline.train_batches = killing
stage, folder, workdir, init = sys.argv[1:]
stages.train(stage, folder, workdir, **({'init_from': init} if stage == 'psp' else {}))
"""


@pytest.mark.long
@pytest.mark.parametrize('stage', ['stylegan2', 'psp'])
def test_a_killed_stage_ends_like_an_uninterrupted_one(trained, picture_folder, tmp_path, stage):
  workdir, _ = trained
  init = str(workdir / 'stylegan2')
  args = [stage, str(picture_folder), str(tmp_path), init]
  done = subprocess.run([sys.executable, '-c', _KILLED, *args], cwd=ROOT, env=os.environ)
  assert done.returncode == -signal.SIGKILL
  assert state(tmp_path / stage).step == 3
  train(stage, picture_folder, tmp_path, **({'init_from': init} if stage == 'psp' else {}))
  found, expected = state(tmp_path / stage), state(workdir / stage)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_run_translates_mixes_and_draws(trained):
  workdir, _ = trained
  run = methods.load(workdir)
  pictures = np.random.RandomState(0).randint(0, 256, (3, 20, 24, 3), np.uint8)
  codes = run.encode(pictures)
  assert codes.shape == (3, 6, 8) and run.encode(pictures[0]).shape == (6, 8)
  plain = run.translate(pictures)
  assert plain.shape == (3, 16, 16, 3) and plain.dtype == np.uint8
  np.testing.assert_array_equal(run.generate(codes), plain)
  np.testing.assert_allclose(run.translate(pictures[1]).astype(int), plain[1], atol=1)
  # Mixing: at alpha 0 nothing changes; `0-` replaces all layers.
  code = run.draw(2, seed=3)[1]
  np.testing.assert_allclose(run.draw(1, 3)[0], run.draw(2, 3)[0], rtol=1e-5)
  np.testing.assert_array_equal(run.translate(pictures, code, alpha=0.0), plain)
  np.testing.assert_allclose(
    run.translate(pictures, code, layers='0-')[0].astype(int), run.generate(code), atol=1
  )
  own = run.mix_codes(codes, None, layers='4-')
  np.testing.assert_array_equal(own[:, :4], codes[:, :4])
  np.testing.assert_array_equal(own[0, 4:], np.stack([run.params['mean_style']] * 2))
  assert not run.mix_codes(codes, None, '4-', masked='zero')[:, 4:].any()
  assert run.sample(pictures[0], 3, truncation=0.5).shape == (3, 16, 16, 3)
  np.testing.assert_allclose(run.draw(2, truncation=0.0)[1, 0], run.params['mean_style'])
  line = run.interpolate(pictures[0], pictures[1], pictures[2], 4, layers='0-')
  np.testing.assert_allclose(line[[0, -1]].astype(int), plain[1:], atol=1)
  assert run.mix(pictures[0], 5).shape == run.mix(pictures[0], pictures[1]).shape


def test_command_line_options_reach_the_run(trained, picture_folder, tmp_path):
  workdir, _ = trained
  source = str(next(picture_folder.glob('val/*.png')))
  np.save(tmp_path / 'code.npy', methods.load(workdir).draw(1)[0])
  shared = ['translate', source, '--workdir', str(workdir), '--side-by-side', '--out']
  for name, options, count in (
    ('plain', [], 1),
    ('masked', ['--layers', '4-'], 1),
    ('drawn', ['--sample', '2', '--truncation', '0.5', '--layers', '4-', '--alpha', '0.5'], 2),
    ('given', ['--style', str(tmp_path / 'code.npy'), '--layers=-1'], 1),
    ('read', ['--style', source, '--style-run', str(workdir / 'psp')], 1),
  ):
    assert cli.main([*shared, str(tmp_path / name), *options]) == 0
    assert len(list((tmp_path / name).glob('*.png'))) == count + 1
  assert cli.main([*shared, str(tmp_path / 'x'), '--layers', '9-']) == 2


def test_a_run_is_scored(trained, tmp_path, monkeypatch):
  workdir, _ = trained
  module = irse.FaceEmbedding((1, 1, 1, 1), (4, 4, 4, 4), squeeze=False, affine=False)
  variables = module.init(jax.random.key(0), np.zeros((1, 112, 112, 3), np.float32))
  (tmp_path / 'face.pth').write_bytes(b'net')
  monkeypatch.setattr(published, 'find', lambda term: tmp_path / 'face.pth')
  monkeypatch.setattr(published, 'read_face_embedding', lambda path: (module, variables))
  found = results.evaluate(workdir, groups=('reconstruction', 'realism'))
  names = set(found['scores'])
  assert {'psnr/uint8', 'l2/float', 'kernel-squeezenet1_1/224-clean'} <= names
  assert 'segmentation' in found['skipped']
  assert -1 <= found['scores']['identity/112']['value'] <= 1
  run = methods.load(workdir)
  mean = run.generate(np.broadcast_to(run.params['mean_style'], run.code_shape))
  targets = inputs.eval_examples(run.config, data.open_config(run.config.data), 'val')
  expected = [metrics.psnr(mean[None], example['target'][None])[0] for example in targets]
  np.testing.assert_allclose(
    found['scores']['psnr-mean-style/uint8']['values'], expected, rtol=1e-4
  )


def test_structure_is_read_from_outputs(trained, monkeypatch):
  monkeypatch.setattr(segmenter, 'SETTINGS', {**segmenter.SETTINGS, 'steps': 4, 'width': 4})
  monkeypatch.setattr(swatches, 'picture_set', functools.partial(swatches.picture_set, train=9))
  labels = Labels('swatches', swatches.NUM_CLASSES)
  found = data.open_data('swatches', resize=16, labels=labels)
  session = dataclasses.replace(session_lib.open_run(trained[0]), pair_set=found)
  # True images instead of outputs: both are read alike, even by a poor segmenter.
  targets = [example['target'] for example in session.pictures('val')]
  monkeypatch.setattr(type(session), 'translations', lambda self, examples: iter(targets))
  by_id = {score.protocol.id: score for score in psp_scores._structure(session)}
  assert len(by_id) == 6
  photos = by_id['segmentation-accuracy-photos']
  assert 0 < photos.value < 1
  for kind in ('', '-sampled'):
    np.testing.assert_array_equal(by_id[f'segmentation-accuracy{kind}'].values, photos.values)


def test_a_run_is_exported(trained, tmp_path):
  run = methods.load(trained[0])
  folder = artefact.write(run, tmp_path / 'export')
  example = load_example.load(folder)
  codes = example['encode'](np.zeros((2, 64, 64, 3), np.uint8))
  np.testing.assert_allclose(codes, run.encode(np.zeros((2, 64, 64, 3), np.uint8)), atol=1e-5)
  drawn = example['sample'](np.ones((1, 8), np.float32))
  images = example['generate'](np.concatenate([codes, drawn]))
  assert images.shape == (3, 16, 16, 3)
  np.testing.assert_allclose(images[:2].astype(int), run.generate(codes), atol=1)
  opened = methods.load(folder)
  image = np.ones((20, 30, 3), np.uint8)
  for make in (lambda run: run.translate(image, layers='2-'), lambda run: run.draw(2)):
    np.testing.assert_array_equal(make(opened), make(run))


def test_a_run_without_encoder_from_its_arrays(trained, monkeypatch):
  run = psp_run.load(trained[0] / 'stylegan2')
  monkeypatch.setattr(programs.programs_lib, 'lower', lambda *args, **options: None)
  tree = flax.traverse_util.unflatten_dict(dict(programs.bundle(run).arrays), sep='/')
  opened = programs.restore(run.config, run.step, tree)
  np.testing.assert_array_equal(opened.generate(3), run.generate(3))
  with pytest.raises(ValueError, match='the configuration says'):
    mapping = {**tree['mapping'], 'mean_style': np.zeros(9, np.float32)}
    programs.restore(run.config, run.step, {**tree, 'mapping': mapping})


def test_published_files_become_runs(trained, tmp_path, monkeypatch):
  run = methods.load(trained[0])
  config, variables = run.config, run.params
  generator, own = networks.generator(config), variables['generator']
  found = import_weights.StyleGAN2(generator, own, np.asarray(variables['mean_style']))
  monkeypatch.setattr(import_weights, 'read_stylegan2', lambda path: found)
  folder = import_run.import_stylegan2('x.pt', tmp_path, 'swatches')
  np.testing.assert_array_equal(psp_run.load(folder).generate(0), run.generate(0))
  mean = np.broadcast_to(variables['mean_style'], (6, 8))
  network = import_weights.Psp(
    networks.encoder(config), variables['encoder'], generator, own, mean, {}
  )
  monkeypatch.setattr(import_weights, 'read_psp', lambda path: network)
  import_run.import_psp('x.pt', tmp_path, 'swatches')
  imported = methods.load(tmp_path)
  picture = np.full((16, 16, 3), 99, np.uint8)
  np.testing.assert_array_equal(imported.translate(picture), run.translate(picture))
  with pytest.raises(RunError, match='is already trained'):
    import_run.import_psp('x.pt', tmp_path)


@pytest.mark.parametrize('task', ['encode', 'segmentation'])
def test_the_demo_page_begins_with_what_the_encoder_reads(
  task, picture_folder, tmp_path, monkeypatch
):
  pytest.importorskip('gradio', reason="gradio is missing: pip install -e '.[demo]'")
  from step_jax.demo import page as page_lib

  labels = {'data.palette': 'swatches', 'data.classes': 5} if task == 'segmentation' else {}
  config = tiny.make_config('psp', picture_folder, **{**FIELDS, 'task': task, **labels})
  fresh = jax.jit(train_psp.make(psp.objectives(config)[0]).init)(jax.random.key(0))
  run = psp_run.PspRun(config, 0, functions.variables(vars(fresh)))
  run.folder = tmp_path
  monkeypatch.setattr(methods, 'load', lambda *args: run)
  page = page_lib.Page.open(tmp_path, 'latest', tmp_path)
  update = page.begin(page_lib.Choice())
  example = data.open_config(config.data).split('val')[0]
  source = {'encode': example['B'], 'segmentation': example.get('labels')}[task]
  np.testing.assert_array_equal(update[page.choice].source, source)
  shown = np.asarray(Image.open(update[page.result]))
  np.testing.assert_array_equal(shown, run.translate(source))
  if task == 'segmentation':
    with pytest.raises(DataError, match='reads label maps'):
      run.encode(example['A'])


def test_a_run_with_only_a_generator_samples(trained):
  workdir, _ = trained
  run = methods.METHODS['psp'].hook('run')(workdir / 'stylegan2', 'best')
  assert run.generate(0).shape == (16, 16, 3) and run.sample(None, 2).shape == (2, 16, 16, 3)
  with pytest.raises(RunError, match='no encoder'):
    run.encode(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize('task', TASKS)
def test_tasks_read_what_they_should(task, picture_folder):
  labels = {'data.palette': 'swatches', 'data.classes': 5} if task == 'segmentation' else {}
  config = tiny.make_config('psp', picture_folder, **{**FIELDS, 'task': task, **labels})
  methods.validate(config)
  found = data.open_config(config.data)
  shape = {'sketch': (64, 64, 1), 'segmentation': (64, 64)}.get(task, (64, 64, 3))
  first, second = list(inputs.eval_examples(config, found, 'val', 2))
  for example in (first, second):
    assert example['source'].shape == shape and example['source'].dtype == np.uint8
    assert example['target'].shape == (16, 16, 3)
  example = found.split('train')[0]
  rng, mirror = np.random.default_rng(0), found.labels.mirror()
  view = inputs.train_example(config, example, inputs.roles(config, found), rng, mirror)
  assert view['source'].shape == shape and view['target'].shape == (16, 16, 3)
  assert inputs.shown(config, view['source']).shape == (64, 64, 3)
  if task == 'encode':
    np.testing.assert_array_equal(first['source'], transforms.resize(first['target'], 64))
  if task == 'segmentation':
    assert set(np.unique(view['source'])) <= set(range(5))
    with pytest.raises(DataError, match='reads label maps'):
      inputs.prepare(config, example['A'])


@pytest.mark.parametrize(
  ('stage', 'fields', 'message'),
  [
    ('stylegan2', {'data.crop': (16, 32)}, 'squares of a power of two'),
    ('stylegan2', {'model.size': 64}, 'training images have 16 px'),
    ('stylegan2', {'batch_size': 6}, 'groups of 4'),
    ('stylegan2', {'dtype': 'bfloat16'}, 'need float32'),
    ('psp', {'loss.identity': 1.0, 'loss.moco': 1.0}, 'exclude each other'),
    ('psp', {'task': 'segmentation'}, 'how label maps encode classes'),
    ('psp', {'model.encoder': 'pyramid'}, '32 px or more'),
    ('psp', {'model.encoder_size': 96}, 'a power of two from 64'),
  ],
)
def test_mismatches_are_one_line_errors(stage, fields, message, tmp_path):
  config = tiny.make_config(stage, tmp_path, **{**FIELDS, **fields})
  with pytest.raises(ConfigError, match=message) as caught:
    methods.validate(config)
  assert '\n' not in str(caught.value)


def test_missing_weights_and_stages_are_one_line(picture_folder, tmp_path):
  with pytest.raises(RunError, match='has no checkpoint to start from'):
    train('psp', picture_folder, tmp_path)
  with pytest.raises(UserError, match='loss.identity needs ArcFace'):
    train('psp', picture_folder, tmp_path, **{'loss.identity': 1.0})


def test_the_step_has_abstract_shapes():
  config = tiny.make_config('psp', pathlib.Path(), **{**FIELDS, 'loss.lpips': 1.0})
  step = methods.abstract_step(config, (16, 16))
  assert isinstance(step, stage_lib.AbstractStep) and 'heads' in step.frozen
