"""Files are written atomically, also by several processes."""

from concurrent import futures
import os

from step_jax import files


def test_two_writers_of_one_file_do_not_conflict(tmp_path):
  """For example, two evaluations of one run; readers get one file or the other."""
  path = tmp_path / 'results.json'
  contents = [bytes([i]) * size for i, size in enumerate((100_000, 300_000, 1000))]
  files.write_bytes(path, contents[0])

  def write(content):
    for _ in range(100):
      files.write_bytes(path, content)
      assert path.read_bytes() in contents

  with futures.ThreadPoolExecutor() as pool:
    list(pool.map(write, contents))
  assert [path.name for path in tmp_path.iterdir()] == ['results.json']


def test_leftovers_and_links_are_not_written_to(tmp_path):
  kept, path = tmp_path / 'kept', tmp_path / 'x'
  part = tmp_path / '.x.part'
  kept.write_text('kept')
  for lay in (
    lambda: part.write_bytes(b'a longer one, of a process that was killed'),
    lambda: part.symlink_to(kept),
    lambda: os.link(kept, part),
    lambda: part.symlink_to(tmp_path / 'nowhere'),
  ):
    lay()
    files.write_text(path, 'new')
    assert (path.read_text(), kept.read_text()) == ('new', 'kept')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['kept', 'x']


def test_names_as_long_as_a_file_system_allows_are_written(tmp_path):
  for name in ('x' * 255, 'ä' * 127):
    files.write_text(tmp_path / name, 'new')
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()


def test_short_names_are_unchanged_and_long_ones_stay_distinct():
  assert files.short_name('photos', 100) == 'photos'
  long = ['ä' * 100 + end for end in 'ab']
  short = [files.short_name(name, 100) for name in long]
  assert short[0] != short[1] and short[0].startswith('äää')
  assert all(80 < len(os.fsencode(name)) <= 100 for name in short)
