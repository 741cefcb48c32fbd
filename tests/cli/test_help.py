"""Every command has enough help, which is shown without importing JAX."""

import subprocess
import sys

import pytest

from step_jax import cli, fields, methods, models
from step_jax.cli import arguments
from step_jax.infer import options

# Prints the heavy packages that the help of each verb has imported.
ALL_HELPS = """
import contextlib, io, sys
from step_jax import cli
for verb in cli.VERBS:
  with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    cli.main([verb, '--help'])
  assert len(text.getvalue()) > 200, verb
print([name for name in ('jax', 'flax', 'orbax', 'tensorflow_datasets') if name in sys.modules])
"""


def test_every_verb_explains_itself_without_jax():
  ran = subprocess.run([sys.executable, '-c', ALL_HELPS], capture_output=True, text=True)
  assert ran.stdout == '[]\n', ran.stderr


def test_help_has_the_first_commands(capsys):
  with pytest.raises(SystemExit):
    cli.main(['--help'])
  text = capsys.readouterr().out
  for word in ('step-jax train pretrain', 'step-jax evaluate', 'quickstart', 'weights'):
    assert word in text


def test_names_of_feature_nets():
  assert fields.NETS == tuple(models.FEATURE_NETS)


def test_options_of_methods_take_no_name_of_ours(monkeypatch):
  option = methods.Option('run', 'a run', of='encode')
  monkeypatch.setitem(methods.METHODS, 'x', methods.Method('x', '', (), (), '', options=(option,)))
  command = ['codes', 'a.png', '--workdir', 'w', '--out', 'o']
  args = cli.parse([*command, '--run', 'other'])
  assert callable(args.run) and arguments.given(args, ['run']) == {'run': 'other'}
  args = cli.parse(command)
  assert callable(args.run) and arguments.given(args, ['run', 'labels']) == {}


@pytest.mark.parametrize('command', ['translate', 'codes'])
def test_flags_of_one_name_are_parsed_alike(command):
  for flag, of_methods in options.flags(command).items():
    assert len({(o.kind, o.nargs, o.choices) for o in of_methods.values()}) == 1, flag
