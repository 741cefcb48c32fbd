"""`docs/config.md` is what the code says, and every field says what it means."""

import pathlib

from step_jax import config_reference, fields

PAGE = pathlib.Path(__file__).parents[2] / 'docs/config.md'


def test_the_page_is_fresh():
  stale = 'make it anew: python -m step_jax.config_reference > docs/config.md'
  assert PAGE.read_text('utf-8') == config_reference.page(), stale


def test_every_field_has_a_meaning_and_every_meaning_a_field():
  found = config_reference.collect()
  assert found.keys() - fields.FIELDS.keys() == set(), 'say what it means in step_jax/fields.py'
  assert fields.FIELDS.keys() - found.keys() == set(), 'no stage has it'
  assert all(field.meaning.strip() for field in fields.FIELDS.values())


def test_the_page_has_every_field_once():
  rows = [
    line.split('|')[1].strip() for line in PAGE.read_text('utf-8').splitlines()[:-1] if '|' in line
  ]
  for name in config_reference.collect():
    assert rows.count(f'`{name}`') == 1, name
  assert {name.rpartition('.')[0] for name in fields.FIELDS} == set(fields.GROUPS)


def test_choices_hold_the_defaults():
  for name, values in config_reference.collect().items():
    choices = fields.FIELDS[name].rule.choices
    assert not choices or set(values.values()) <= set(choices), name
