"""Published data sets from a local server: complete, truncated, resumed, wrong and hostile."""

import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import stat
import tarfile
import threading
import zipfile

import numpy as np
from PIL import Image
import pytest

from step_jax import cli
from step_jax.data import archives, folders, labels, published
from step_jax.errors import DataError
from step_jax.fields import DATASETS


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.files` with ranges; `server.cut` truncates each answer to this many bytes."""

  def do_GET(self):
    body = self.server.files.get(self.path)
    tag = f'"{hashlib.sha256(body or b"").hexdigest()[:8]}"'
    start = 0
    wanted = self.headers.get('Range')
    self.server.ranges.append(wanted)
    if wanted and self.headers.get('If-Range') == tag:
      start = int(wanted.removeprefix('bytes=').rstrip('-'))
    self.send_response(404 if body is None else 206 if start else 200)
    body = body or b''
    self.send_header('ETag', tag)
    self.send_header('Content-Length', str(len(body) - start))
    if start:
      self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
    self.end_headers()
    with contextlib.suppress(BrokenPipeError):
      self.wfile.write(body[start:][: self.server.cut])

  def log_message(self, *args):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as made:
    made.files, made.ranges, made.cut = {}, [], None
    made.url = f'http://127.0.0.1:{made.server_port}'
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def publish(server, monkeypatch):
  """Serves an archive as that of a set, and returns its address."""

  def publish(archive, name='facades', megabytes=1, sha256=''):
    address = f'{server.url}/{name}'
    server.files[f'/{name}'] = archive
    changed = dataclasses.replace(
      published.PUBLISHED[name], urls=(address,), megabytes=megabytes, sha256=sha256
    )
    monkeypatch.setattr(published, 'PUBLISHED', {**published.PUBLISHED, name: changed})
    return address

  return publish


def picture():
  noise = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, 'JPEG')
  return file.getvalue()


def tar(files, change=lambda info: None):
  """A tar.gz of `{name: content}`; `change` may alter a header."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      change(info)
      archive.addfile(info, io.BytesIO(content))
  return file.getvalue()


def facades(**more):
  names = ('facades/train/1.jpg', 'facades/train/2.jpg', 'facades/val/1.jpg')
  return tar({**dict.fromkeys(names, picture()), 'facades/._x.jpg': b'', **more})


def get(name='facades', **options):
  return published.get(name, accept=lambda terms: True, **options)


def leftovers(folder):
  return sorted(path.name for path in (folder / 'data').glob('*'))


def test_a_data_set_is_stored_where_its_preset_expects_it(publish, here):
  lines = []
  address = publish(facades())
  assert str(get(say=lines.append)) == 'data/facades'
  found = folders.scan('data/facades')
  assert {split: len(examples) for split, examples in found.splits.items()} == {
    'train': 2, 'val': 1
  }  # fmt: skip
  assert leftovers(here) == ['facades', 'facades.origin.json']
  origin = json.loads((here / 'data/facades.origin.json').read_text())
  assert origin['url'] == address and len(origin['sha256']) == 64
  assert 'trusting this download' in lines[0]
  get(say=lines.append)
  assert 'is there already' in lines[1]


def test_label_maps_with_images(publish, here):
  classes = np.arange(16 * 32, dtype=np.uint8).reshape(16, 32) % 12 + 1
  label_map = Image.fromarray(classes).convert('P')
  label_map.putdata(classes.ravel())
  png, file = io.BytesIO(), io.BytesIO()
  label_map.save(png, 'PNG')
  with zipfile.ZipFile(file, 'w') as archive:
    for number in range(2):
      for end, content in (('jpg', picture()), ('png', png.getvalue()), ('xml', b'<a/>')):
        archive.writestr(f'base/cmp_b000{number}.{end}', content)
  publish(file.getvalue(), 'cmp_facade')
  preset = DATASETS['cmp_facade']
  found = folders.scan(
    get('cmp_facade'), labels=labels.Labels(preset['palette'], preset['classes'])
  )
  examples = [example.load() for examples in found.splits.values() for example in examples]
  assert found.layout == 'images_labels' and len(examples) == 2
  np.testing.assert_array_equal(examples[0]['labels'], classes - 1)


def test_terms_must_be_accepted(publish, here):
  publish(facades())
  shown = []
  with pytest.raises(DataError, match='--accept-licence'):
    published.get('facades', accept=shown.append)
  assert 'cmp.felk.cvut.cz' in shown[0] and not leftovers(here)


def test_a_truncated_download_is_resumed(publish, server, here):
  publish(facades())
  server.cut = 300
  with pytest.raises(DataError, match='cut short after 300 of .*re-run the command') as error:
    get()
  assert '\n' not in str(error.value) and leftovers(here) == ['.facades.download']
  server.cut = None
  get()
  assert server.ranges == [None, 'bytes=300-']
  assert len(list((here / 'data/facades/train').iterdir())) == 2


def test_another_file_at_the_address_is_not_appended(publish, server, here):
  publish(facades())
  server.cut = 300
  with pytest.raises(DataError):
    get()
  server.cut = None
  publish(facades(**{'facades/val/2.jpg': picture()}))
  get()
  assert len(list((here / 'data/facades/val').iterdir())) == 2


def test_wrong_digests(publish, server, here):
  publish(facades(), sha256='0' * 64)
  with pytest.raises(DataError, match='not that of the published archive'):
    get()
  address = publish(facades())
  with pytest.raises(DataError, match='not the expected one'):
    get(urls=[f'{address}#sha256={"1" * 64}'])
  assert not leftovers(here)
  get(urls=[f'{address}#sha256={hashlib.sha256(facades()).hexdigest()}'])
  (here / 'data/facades').rename(here / 'moved')
  publish(tar({'facades/train/1.jpg': picture()}))
  with pytest.raises(DataError, match='not that of the first download'):
    get()
  assert leftovers(here) == ['facades.origin.json']


def as_link(info):
  info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'


def as_device(info):
  info.type = tarfile.CHRTYPE


def zip_link():
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    info = zipfile.ZipInfo('facades/train/1.jpg')
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, '/etc/passwd')
  return file.getvalue()


def zip_bomb():
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('facades/train/1.jpg', bytes(14_000_000))
  return file.getvalue()


HOSTILE = {
  'parent': (lambda: tar({'facades/train/../../../evil.jpg': b'x'}), 'leads out'),
  'absolute': (lambda: tar({'/tmp/evil.jpg': b'x'}), 'leads out'),
  'no name': (lambda: tar({'': b'x'}), 'leads out'),
  'backslash': (lambda: tar({'facades\\..\\train/1.jpg': b'x'}), 'leads out'),
  'left out parent': (lambda: tar({'../readme.txt': b'x'}), 'leads out'),
  'link': (lambda: tar({'facades/train/1.jpg': b''}, as_link), 'no plain file'),
  'device': (lambda: tar({'facades/train/1.jpg': b''}, as_device), 'no plain file'),
  'zip link': (zip_link, 'no plain file'),
  'bomb': (lambda: tar({'facades/train/1.jpg': bytes(14_000_000)}), 'inflates to more'),
  'bomb left out': (lambda: tar({'facades/readme': bytes(14_000_000)}), 'inflates to more'),
  'bomb of a header': (lambda: tar({'x' * 3_000_000: b''}), 'extreme length'),
  'zip bomb': (zip_bomb, 'inflates to more'),
  'cut short': (lambda: facades()[:-200], 'cannot be unpacked'),
  'long name': (lambda: tar({f'facades/train/{"x" * 300}.jpg': b'x'}), 'extreme length'),
  'file as folder': (
    lambda: tar({'facades/train/1.jpg': b'', 'facades/train/1.jpg/2.jpg': b''}), 'twice|unpacked'
  ),
  'damaged': (lambda: facades()[:-8] + bytes(8), 'cannot be unpacked'),
  'web page': (lambda: b'<html>sign in</html>', 'neither a tar.gz nor a zip'),
  'nothing of it': (lambda: tar({'readme.txt': b'x'}), 'holds no images of facades'),
  'too long': (lambda: bytes(4_000_000), 'too long'),
}  # fmt: skip


@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_archives_leave_no_files(publish, here, kind):
  make, message = HOSTILE[kind]
  publish(make())
  with pytest.raises(DataError, match=message) as error:
    get()
  assert '\n' not in str(error.value) and not leftovers(here)
  assert sorted(path.name for path in here.iterdir()) == ['data']


def test_two_files_of_one_name(tmp_path):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    for _ in range(2):
      archive.addfile(tarfile.TarInfo('train/1.jpg'))
  (tmp_path / 'x').write_bytes(file.getvalue())
  with pytest.raises(DataError, match='holds 1.jpg twice'):
    archives.unpack(tmp_path / 'x', tmp_path, str, 10**6)


def test_a_missing_data_set_is_reported_with_how_to_get_it(here):
  with pytest.raises(DataError, match='step-jax data get facades'):
    folders.scan('data/facades')
  with pytest.raises(DataError, match='give the folder that holds your'):
    folders.scan('data/other')


def test_addresses_that_fail(publish, server, here):
  publish(facades())
  gone, elsewhere = f'{server.url}/gone', f'{server.url}/facades'
  with pytest.raises(DataError, match='gone: HTTP 404; file:///x: not an http address'):
    get(urls=[gone, 'file:///x'])
  assert not leftovers(here)
  get(urls=[gone, elsewhere])


def test_the_verb(publish, here, capsys, monkeypatch):
  address = publish(facades())
  monkeypatch.setattr('sys.stdin', io.StringIO())  # No terminal to prompt on.
  assert cli.main(['data', 'get', 'facades']) == 2
  shown = capsys.readouterr().err
  assert 'facades (label map | photo of a facade, 1 MB)' in shown and '--accept-licence' in shown
  get = ['data', 'get', 'facades', '--accept-licence', '--url', address]
  assert cli.main([*get, '--out', 'mine']) == 0
  assert capsys.readouterr().out == 'mine: use it as --data facades=mine\n'
  assert cli.main(get) == 0
  assert capsys.readouterr().out == 'data/facades: use it as --data facades\n'
  assert cli.main(['data', 'list']) == 0
  here = [
    line.split()[0] for line in capsys.readouterr().out.splitlines() if ' downloaded ' in line
  ]
  assert here == ['facades']


def test_names(here):
  with pytest.raises(DataError, match='did you mean facades'):
    get('facade')
  assert set(published.PUBLISHED) <= set(DATASETS)
