"""`docs/config.md` is up to date, and every field has a description."""

import pathlib

from step_jax import config_reference, fields

PAGE = pathlib.Path(__file__).parents[2] / 'docs/config.md'


def test_the_page_is_fresh():
  stale = 'make it anew: python -m step_jax.config_reference > docs/config.md'
  assert PAGE.read_text('utf-8') == config_reference.page(), stale


def test_every_field_means_one_thing():
  for name, stages in config_reference.collect().items():
    meanings = {field.meaning for field in stages.values()}
    assert len(meanings) == 1 and meanings.pop().strip(), name


def test_the_page_has_every_field_once():
  rows = [
    line.split('|')[1].strip() for line in PAGE.read_text('utf-8').splitlines()[:-1] if '|' in line
  ]
  for name in config_reference.collect():
    assert rows.count(f'`{name}`') == 1, name
  assert {name.rpartition('.')[0] for name in config_reference.collect()} == set(fields.GROUPS)


def test_defaults_are_within_their_ranges():

  for name, stages in config_reference.collect().items():
    for field in stages.values():
      assert field.problem(field.default) == '', name
