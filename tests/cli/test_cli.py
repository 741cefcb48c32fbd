"""The command line: valid commands, and errors in one line with an exit status."""

import pathlib
import shutil

import jax
import numpy as np
from PIL import Image
import pytest
import tiny

from step_jax import cli, main
from step_jax.data import pictures
from step_jax.train import mesh


def run(capsys, *arguments):
  """Exit status, standard output and standard error of a command."""
  status = cli.main([str(argument) for argument in arguments])
  out = capsys.readouterr()
  return status, out.out, out.err


def refuse(capsys, *arguments):
  """The one-line error of a command."""
  status, out, err = run(capsys, *arguments)
  assert status == 2 and not out
  lines = [line for line in err.splitlines() if line.startswith('step-jax: ')]
  assert len(lines) == 1, err
  assert 'Traceback' not in err
  return lines[0]


TINY = [f'--config.{name}={value}' for name, value in tiny.FIELDS.items()]


def test_prepare_and_train_on_it(capsys, picture_folder, tmp_path):
  status, out, _ = run(capsys, 'prepare', picture_folder, '--out', tmp_path / 'set')
  assert status == 0 and '24 train, 5 val' in out
  fields = [f'--config.{name}={tiny.FIELDS[name]}' for name in PRETRAIN]
  status, _, _ = run(
    capsys, 'train', 'pretrain', '--data', tmp_path / 'set', '--workdir', tmp_path / 'run',
    '--weights', 'random', '--kimg', '0.008', *fields,
  )  # fmt: skip
  assert status == 0
  assert (tmp_path / 'run/pretrain/config.json').is_file()


PRETRAIN = ('batch_size', 'data.crop', 'features.net', 'features.taps', 'model.encoder_width')


def test_translate_writes_pictures(capsys, trained_run, picture_folder, tmp_path):
  workdir, _ = trained_run
  inputs = [picture_folder / 'val/00.png', picture_folder / 'val/01.png']
  for options, count in (
    (['--style', inputs[1]], 1),
    (['--style', inputs[0], inputs[1]], 2),
    (['--interpolate', inputs[0], inputs[1], '--steps', '3'], 3),
    (['--sample', '2'], 2),
    (['--sample', '2', '--sampler', 'gaussian', '--seed', '3'], 2),
  ):
    out = tmp_path / str(len(options)) / str(options[0]) / str(count)
    status, text, _ = run(
      capsys, 'translate', *inputs, '--workdir', workdir, '--out', out, '--side-by-side', *options
    )
    assert status == 0 and f'{2 * count} images' in text
    files = sorted(path.name for path in out.iterdir())
    assert len(files) == 2 * count + 1 and 'grid.png' in files
    for name in files:
      if name != 'grid.png':
        assert pictures.read_picture(out / name).shape == (16, 20, 3)


def test_codes_are_styles(capsys, trained_run, picture_folder, tmp_path):
  image, work = picture_folder / 'val/00.png', ['--workdir', trained_run[0], '--side-by-side']
  status, out, _ = run(capsys, 'codes', image, *work, '--out', tmp_path / 'codes')
  assert status == 0 and '1 code and codes.json' in out
  results = []
  for style in (image, tmp_path / 'codes/00.npy'):
    out = ['--out', tmp_path / style.suffix]
    assert run(capsys, 'translate', image, *work, *out, '--style', style)[0] == 0
    results.append(pictures.read_picture(tmp_path / style.suffix / '00.png'))
  np.testing.assert_array_equal(*results)
  wrong = tmp_path / 'wrong.npy'
  np.save(wrong, np.zeros(3))
  line = refuse(capsys, 'translate', image, *work, '--out', tmp_path / 'no', '--style', wrong)
  assert (
    'wrong.npy: is not a code of this run: got float64 [3], expected finite numbers [8]' in line
  )
  line = refuse(capsys, 'translate', image, *work, '--out', tmp_path, '--style', image, '--sampler',
                'gaussian')  # fmt: skip
  assert '--sampler: applies only to sampled styles: give it with --sample' in line


def test_a_folder_of_inputs_of_any_size(capsys, trained_run, tmp_path):
  workdir, _ = trained_run
  (tmp_path / 'in').mkdir()
  rng = np.random.default_rng(0)
  for i, size in enumerate([(19, 33), (40, 24)]):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / f'in/{i}.png')
  status, _, _ = run(
    capsys, 'translate', tmp_path / 'in', '--workdir', workdir, '--out', tmp_path / 'out',
    '--style', tmp_path / 'in/0.png',
  )  # fmt: skip
  assert status == 0
  assert pictures.read_picture(tmp_path / 'out/0.png').shape == (19, 33, 3)
  assert pictures.read_picture(tmp_path / 'out/1.png').shape == (40, 24, 3)


def test_images_too_small_for_a_style_are_a_one_line_error(
  capsys, trained_run, picture_folder, tmp_path
):
  workdir = shutil.copytree(trained_run[0], tmp_path / 'run')
  image = np.zeros((12, 28, 3), np.uint8)
  (tmp_path / 'in/train').mkdir(parents=True)
  for i in range(6):
    Image.fromarray(image).save(tmp_path / f'in/train/{i}.png')
  small = tmp_path / 'in/train/0.png'
  out = ['--workdir', workdir, '--out', tmp_path / 'out']
  line = refuse(capsys, 'translate', picture_folder / 'val/00.png', *out, '--style', small)
  assert f'{small}: an image of 28x12 px is too small' in line and not (tmp_path / 'out').exists()
  # A source is not encoded, so it may be small.
  assert run(capsys, 'translate', small, *out, '--sample', '1')[0] == 0
  line = refuse(capsys, 'evaluate', '--workdir', workdir, '--data', tmp_path / 'in')
  assert 'an image of 14x12 px is too small' in line


def test_report_and_evaluate(capsys, trained_run, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(trained_run[0], workdir)
  status, out, _ = run(
    capsys, 'evaluate', '--workdir', workdir, '--checkpoint', 'best', '--groups', 'reconstruction'
  )
  assert status == 0 and 'psnr' in out and 'features=random' in out
  status, out, _ = run(capsys, 'evaluate', '--compare', workdir, workdir / 'finetune')
  assert status == 0 and out.count('psnr/uint8') == 1 and '≠' not in out
  status, out, _ = run(capsys, 'report', '--workdir', workdir)
  assert status == 0 and 'report.html' in out


def test_weights_list(capsys):
  status, out, _ = run(capsys, 'weights', 'list')
  assert status == 0
  assert [pathlib.Path(line).name for line in out.split()][-2:] == [
    'lpips_squeeze.safetensors',
    'squeezenet1_1.safetensors',
  ]


def test_mistakes_are_one_line_errors(capsys, picture_folder, trained_run, tmp_path):
  workdir, _ = trained_run
  train = ['train', 'pretrain', '--workdir', tmp_path / 'run']
  stop = lambda *args: refuse(capsys, *args)
  assert '--data is missing' in stop(*train)
  assert 'no such folder' in stop(*train, '--data', tmp_path / 'nothing')
  (tmp_path / 'empty').mkdir()
  assert 'holds no png' in stop(*train, '--data', tmp_path / 'empty')
  data = ['--data', picture_folder]
  assert 'weights get vgg16' in stop(*train, *data, '--features', 'vgg16')
  assert 'did you mean batch_size' in stop(*train, *data, '--config.batch_siz=3')
  assert 'is not an integer' in stop(*train, *data, '--config.batch_size=x')
  assert "argument '--batch_size=3' is unknown" in stop(*train, *data, '--batch_size=3')
  assert "--preset 'facade' is unknown: did you mean facades" in stop(*train, '--preset', 'facade')
  assert 'did you mean munit_p_v' in stop(*train, *data, '--preset', 'munit_p')
  assert "data set 'facade' is unknown" in stop(*train, '--data', 'facade=/mine')
  random = [*data, '--weights', 'random', '--features', 'squeezenet1_1']
  assert 'below the crop of 256' in stop(*train, *random)
  later = ['train', 'translate', '--workdir', tmp_path / 'run', '--config.data.crop=16,16']
  assert 'has no checkpoint to start from' in stop(*later, *random)
  assert 'schedule.total_kimg=' in stop(*later, *random, '--config.schedule.total_kimg=0')
  assert 'epochs' in stop('train', 'mapper', '--workdir', tmp_path, *data, '--kimg', '3')
  assert not (tmp_path / 'run').exists()
  assert 'has no trained generator' in stop('evaluate', '--workdir', tmp_path)
  assert 'has no results' in stop('evaluate', '--compare', tmp_path, workdir)
  assert "'fid'; there are" in stop('evaluate', '--workdir', workdir, '--groups', 'fid')
  assert 'has no trained stage' in stop('report', '--workdir', tmp_path)
  assert "no split 'test'" in stop('evaluate', '--workdir', workdir, '--split', 'test')
  out = ['--workdir', workdir, '--out', tmp_path / 'out']
  assert 'no such image' in stop('translate', 'gone.png', *out, '--sample', '1')
  assert not (tmp_path / 'out').exists()
  assert 'holds no png' in stop('translate', tmp_path / 'empty', *out, '--sample', '1')
  assert 'no such file' in stop('weights', 'convert', tmp_path / 'gone.pth').lower()
  assert 'is not empty' in stop('prepare', picture_folder, '--out', picture_folder)


TRANSLATE = ('translate', 'x.png', '--workdir', 'run', '--out', 'out')
REPRODUCE = ('reproduce', 'ablation', '--workdir', 'run', '--data', 'swatches')


@pytest.mark.parametrize(
  'command',
  [
    (*TRANSLATE, '--sample', '-1'),
    (*TRANSLATE, '--sample', '0'),
    (*TRANSLATE, '--sample', '1.5'),
    (*TRANSLATE, '--interpolate', 'a', 'b', '--steps', '0'),
    (*TRANSLATE, '--sample', '1', '--seed', '-1'),
    ('evaluate', '--workdir', 'run', '--seed', '-1'),
    ('prepare', 'in', '--out', 'out', '--resize', '-8'),
    ('prepare', 'in', '--out', 'out', '--val-fraction', '1'),
    ('prepare', 'in', '--out', 'out', '--val-fraction', 'nan'),
    ('train', 'pretrain', '--workdir', 'run', '--size', '0'),
    ('train', 'pretrain', '--workdir', 'run', '--kimg', '0'),
    ('train', 'pretrain', '--workdir', 'run', '--kimg', '-1'),
    ('train', 'pretrain', '--workdir', 'run', '--kimg', 'inf'),
    ('train', 'pretrain', '--workdir', 'run', '--kimg', 'x'),
    ('demo', '--workdir', 'run', '--port', '70000'),
    (*REPRODUCE, '--size', '-1'),
    (*REPRODUCE, '--kimg', '0'),
    (*REPRODUCE, '--pretrain-kimg', '-1'),
    (*REPRODUCE, '--seeds', '0'),
    ('bench', 'imle', '--size', '-8'),
    ('bench', 'imle', '--batch', '-1'),
    ('bench', 'imle', '--width', '0'),
    ('bench', 'imle', '--repeats', '-1'),
    ('bench', 'imle', '--count', '-1'),
    ('export', '--workdir', 'run', '--onnx', '-1'),
  ],
)
def test_numbers_out_of_range_are_a_one_line_error(capsys, command):
  with pytest.raises(SystemExit) as stop:
    cli.main(command)
  out, err = capsys.readouterr()
  assert stop.value.code == 2 and not out
  assert err.startswith(f'step-jax: argument {command[-2]}: {command[-1]!r} is not a ')
  assert err.endswith(f': see step-jax {command[0]} --help\n') and err.count('\n') == 1


def test_unknown_arguments_are_a_one_line_error(capsys):
  for command, words in (
    (('evaluate', '--workdir', 'run', '--sed', '1'), "unknown argument '--sed' of evaluate"),
    (('evaluate',), 'one of the arguments --workdir --compare is required'),
    (('translat',), "invalid choice: 'translat'"),
  ):
    with pytest.raises(SystemExit) as stop:
      cli.main(command)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith('step-jax: ') and words in err
    assert err.count('\n') == 1


def test_a_damaged_picture_is_named_and_nothing_is_left(capsys, picture_folder, tmp_path):
  shutil.copytree(picture_folder, tmp_path / 'in')
  broken = tmp_path / 'in/train/07.png'
  broken.write_bytes(broken.read_bytes()[:100])
  line = refuse(
    capsys, 'train', 'pretrain', '--data', tmp_path / 'in', '--workdir', tmp_path / 'run',
    '--weights', 'random',
  )  # fmt: skip
  assert '07.png: cannot be read as an image' in line
  assert not (tmp_path / 'run').exists()


def test_networks_of_another_size_are_named(capsys, picture_folder, trained_run, tmp_path):
  workdir, _ = trained_run
  shutil.copytree(workdir / 'pretrain', tmp_path / 'pretrain')
  line = refuse(
    capsys, 'train', 'translate', '--data', picture_folder, '--workdir', tmp_path,
    *(f for f in TINY if 'epochs' not in f), '--config.model.encoder_width=6',
  )  # fmt: skip
  assert 'style_encoder' in line and 'was expected: use the model settings' in line
  assert not (tmp_path / 'translate').exists()


def test_a_batch_must_divide_by_the_devices(monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 8)
  mesh.check_batch_size(16)
  with pytest.raises(main.UserError, match='batch_size=12 does not divide by the 8 devices: use 8'):
    mesh.check_batch_size(12)


def test_main_is_the_same_training(capsys, picture_folder, tmp_path):
  fields = [f'--config.{name}={tiny.FIELDS[name]}' for name in PRETRAIN]
  from step_jax import config as config_lib

  status = main.main(
    [
      f'--config={config_lib.stage_file("pretrain")}',
      f'--workdir={tmp_path}',
      f'--config.data.path={picture_folder}',
      '--config.features.weights=random',
      '--config.schedule.total_kimg=0.008',
      *fields,
    ]
  )
  assert status == 0 and (tmp_path / 'pretrain/checkpoints').is_dir()
  assert main.main(['--config=x.py', '--workdir=y']) == 2
  assert 'x.py: no such configuration file' in capsys.readouterr().err
