"""Traces of the configured steps, for every way in which training may end."""

import gzip
import json

import pytest
import toy


def traced(folder) -> list[int]:
  """Numbers of the steps in the only trace in the folder of a stage."""
  (path,) = (folder / 'profile').rglob('*.trace.json.gz')
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  return sorted(
    {int(event['args']['step_num']) for event in events if event.get('name') == 'train'}
  )


@pytest.mark.parametrize(('asked', 'steps'), [((3, 5), [3, 4, 5]), ((9, 20), [9, 10])])
def test_the_configured_steps_are_traced(tmp_path, asked, steps):
  assert traced(toy.train(tmp_path, profile=asked)) == steps


def test_without_steps_there_is_no_trace(tmp_path):
  folder = toy.train(tmp_path)
  assert not (folder / 'profile').exists()


def test_a_trace_may_be_asked_for_on_resume(tmp_path):
  toy.train(tmp_path, **{'schedule.total_kimg': 4.0})
  assert traced(toy.train(tmp_path, profile=(2, 6))) == [5, 6]


def test_a_failure_ends_the_trace(tmp_path, monkeypatch):
  def hook(step):
    if step == 4:
      raise OSError('gone')

  monkeypatch.setattr(toy, 'hook', hook)
  with pytest.raises(OSError, match='gone'):
    toy.train(tmp_path, profile=(3, 8))
  assert traced(tmp_path / 'toy')[:2] == [3, 4]
  monkeypatch.undo()
  assert toy.train(tmp_path)
