"""The page `docs/config.md`, made from the configurations themselves."""

from collections.abc import Iterable, Mapping
import sys
from typing import Any

from step_jax import config as config_lib
from step_jax import fields, methods

_INTRODUCTION = """\
# Configuration

Every field can be set on the command line: `--config.optimizer.generator_lr=5e-4` with
`step-jax train` and with `python -m step_jax.main`. Tuples are written `64,64`. A later stage takes
the groups `data`, `features` and `model` from the stage before, unless they are set. Which fields
may change when a stage goes on is said in [reliability.md](reliability.md).

A field of another name, or a value out of the range that is given here, is an error before training
starts, in a file of your own too. Your own stages can declare their fields in the same way, see
[extending.md](extending.md).

Defaults are those of a folder of one's own; below are the data sets, feature nets and presets that
have others.

This page is made by `python -m step_jax.config_reference > docs/config.md`."""

# Methods of users and of tests may be registered, too.
_STAGES = tuple(filter(config_lib.is_ours, methods.STAGES))


def page() -> str:
  """The reference of all fields of all stages, in Markdown."""
  declared = collect()
  parts = [_INTRODUCTION]
  for group, title in fields.GROUPS.items():
    parts.append(f'## {title}' + (f' (`{group}.…`)' if group else ''))
    parts += [fields.NOTES[group]] if group in fields.NOTES else []
    rows = [
      (
        f'`{name}`',
        _by_stage({stage: _values(field) for stage, field in of_stages.items()}, len(of_stages)),
        _by_stage(
          {stage: _shown(field.default) for stage, field in of_stages.items()},
          len(_STAGES),
        ),
        next(iter(of_stages.values())).meaning,
      )
      for name, of_stages in declared.items()
      if name.rpartition('.')[0] == group
    ]
    parts.append(_table(('field', 'values', 'default', 'meaning'), rows))
  parts += ['## Data sets', 'What `--data NAME` or `--preset NAME` sets beyond the defaults.']
  parts.append(_changes('data set', config_lib.DATASETS))
  defaults = "`vgg16` is StEP's default, `alexnet` that of pSp."
  parts += ['## Feature nets', f'What `--features NAME` sets; {defaults}']
  parts.append(_changes('net', config_lib.FEATURES))
  parts += [
    '## Presets of methods',
    'What `--preset NAME` or `configs/FILE.py:DATA,preset=NAME` sets. Later stages keep it.',
  ]
  parts += [
    f'### `{method.name}`\n\n{_presets(method)}'
    for method in methods.METHODS.values()
    if method.presets and config_lib.is_ours(method.stages[0].name)
  ]
  return '\n\n'.join(parts) + '\n'


def collect() -> dict[str, dict[str, fields.Field]]:
  """Dotted name of a field -> stage -> how it is declared there."""
  declared: dict[str, dict[str, fields.Field]] = {}
  for stage in _STAGES:
    for name, field in config_lib.stage_module(stage).FIELDS.items():
      declared.setdefault(name, {})[stage] = field
  return declared


def _values(field: fields.Field) -> str:
  """What a field may be: its type, and within that its rule."""
  names = {bool: 'true or false', int: 'integer', float: 'number', str: '', tuple: ''}
  rule = '' if isinstance(field.default, bool) else field.rule.text
  return f'{names[type(field.default)]} {rule}'.strip()


def _by_stage(texts: Mapping[str, str], everywhere: int) -> str:
  """One text where so many stages have the same; `stages: text` where some differ or do without."""
  stages: dict[str, list[str]] = {}
  for stage, text in texts.items():
    stages.setdefault(text, []).append(stage)
  if len(stages) == 1 and len(texts) == everywhere:
    return next(iter(stages))
  return '; '.join(f'{", ".join(names)}: {text}' for text, names in stages.items())


def _shown(value: Any) -> str:
  if isinstance(value, tuple):
    return f'`{", ".join(map(_plain, value))}`' if value else 'none'
  return f'`{_plain(value)}`' if value != '' else 'empty'


def _plain(value: Any) -> str:
  if isinstance(value, tuple):
    return f'({", ".join(map(_plain, value))})'
  return str(value).lower() if isinstance(value, bool) else str(value)


def _changes(what: str, settings_of: Mapping[str, Mapping[str, Any]]) -> str:
  rows = [(f'`{name}`', _settings(settings)) for name, settings in settings_of.items()]
  return _table((what, 'sets'), rows)


def _presets(method: methods.Method) -> str:
  rows = [
    (
      f'`{name}`',
      preset.meaning,
      _by_stage(
        {stage: _settings(values) for stage, values in preset.fields.items()}, len(preset.fields)
      ),
    )
    for name, preset in method.presets.items()
  ]
  return _table(('preset', 'is', 'sets'), rows)


def _settings(values: Mapping[str, Any]) -> str:
  return '; '.join(f'`{field}` {_shown(value)}' for field, value in values.items())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
  cell = lambda text: text.replace('|', '\\|')
  lines = [head, ['---'] * len(tuple(head)), *rows]
  return '\n'.join(f'| {" | ".join(map(cell, line))} |' for line in lines)


if __name__ == '__main__':
  sys.stdout.write(page())
