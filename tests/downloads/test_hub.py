"""Exports on the Hugging Face hub, with a stand-in for its HTTP interface."""

import hashlib
import http.server
import json
import re
import sys
import threading
import urllib.parse

import pytest

from step_jax import cli, files, methods
from step_jax.errors import RunError
from step_jax.methods import names

constants = pytest.importorskip('huggingface_hub.constants')
COMMIT = '0123456789abcdef' * 2 + '01234567'
EXPORT = {'manifest.json': b'{"format": 1}', 'params.safetensors': bytes(1000), 'README.md': b'#'}


class Hub(http.server.BaseHTTPRequestHandler):
  """Serves `server.files` as a model with one commit; `server.sizes` overrides listed sizes."""

  def do_HEAD(self):
    self._answer()

  def do_GET(self):
    self.wfile.write(self._answer())

  def _answer(self) -> bytes:
    server, path = self.server, urllib.parse.urlsplit(self.path).path
    server.asked.append(path)
    headers = {'X-Error-Code': server.error} if server.error else {}
    status, body = server.status, b''
    about = re.fullmatch(r'/api/models/ann/swatches/revision/(\w+)', path)
    file = re.fullmatch(rf'/ann/swatches/resolve/(main|{COMMIT})/(.+)', path)
    if status != 200:
      pass
    elif about and about[1] in ('main', COMMIT):
      sizes = {name: len(data) for name, data in server.files.items()} | server.sizes
      listed = [{'rfilename': name, 'size': size} for name, size in sizes.items()]
      body = json.dumps({'id': 'ann/swatches', 'sha': COMMIT, 'siblings': listed}).encode()
    elif file and file[2] in server.files:
      body = server.files[file[2]]
      headers = {'ETag': f'"{hashlib.sha256(body).hexdigest()}"', 'X-Repo-Commit': COMMIT}
    else:
      status, headers = 404, {'X-Error-Code': 'RevisionNotFound' if about else 'RepoNotFound'}
    self.send_response(status)
    for name, value in {**headers, 'Content-Length': str(len(body))}.items():
      self.send_header(name, value)
    self.end_headers()
    return body

  def log_message(self, *args):
    pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
    server.files, server.sizes, server.asked = dict(EXPORT), {}, []
    server.status, server.error = 200, ''
    server.url = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'ENDPOINT', server.url)
    file = server.url + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', file)
    monkeypatch.setenv('STEP_JAX_CACHE', str(tmp_path / 'cache'))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.mark.parametrize('revision', ['', '@main', f'@{COMMIT}'])
def test_the_files_of_a_run_are_fetched_once(hub, revision):
  folder = methods.resolve(f'hf://ann/swatches{revision}')
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
    name: EXPORT[name] for name in names.FILES
  }
  assert methods.is_export(folder)
  hub.asked.clear()
  assert methods.resolve(f'hf://ann/swatches{revision}') == folder
  assert f'/ann/swatches/resolve/{COMMIT}/params.safetensors' not in hub.asked


def test_without_a_network_the_cache_is_used(hub, monkeypatch, caplog):
  folder = methods.resolve('hf://ann/swatches')
  monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
  assert methods.resolve('hf://ann/swatches') == folder
  assert 'using the last download' in caplog.text
  with pytest.raises(RunError, match=r'ann/else: cannot be downloaded \(.*: check the network'):
    methods.resolve('hf://ann/else')


def refused(hub, match, name='hf://ann/swatches'):
  with pytest.raises(RunError, match=match) as error:
    methods.resolve(name)
  assert '\n' not in str(error.value) and str(error.value).startswith(name)
  assert not [path for path in hub.asked if '/resolve/' in path]


@pytest.mark.parametrize('name', ['../../evil.json', 'a/../../b', '/etc/passwd', '..\\b', 'a\n/..'])
def test_names_that_leave_the_folder(hub, name):
  hub.files[name] = b''
  refused(hub, 'refused: the file name')


@pytest.mark.parametrize('size', [1 << 40, None, 'many'])
@pytest.mark.parametrize('file', names.FILES)
def test_sizes_are_checked_first(hub, file, size):
  hub.sizes[file] = size
  refused(hub, f'refused: {file} has')


def test_too_many_files(hub):
  hub.files |= {f'{i}.bin': b'' for i in range(1000)}
  refused(hub, 'has 1003 files')


def test_pickles_are_never_fetched(hub):
  hub.files['model.pkl'] = b'\x80\x04.'
  folder = methods.resolve('hf://ann/swatches')
  assert sorted(path.name for path in folder.iterdir()) == sorted(names.FILES)
  assert not [path for path in hub.asked if 'pkl' in path]
  del hub.files['params.safetensors']
  hub.asked.clear()
  refused(hub, 'params.safetensors is missing')


def test_a_changed_file(hub):
  hub.sizes['params.safetensors'] = 999
  with pytest.raises(RunError, match='changed during the download'):
    methods.resolve('hf://ann/swatches')


@pytest.mark.parametrize(
  'status, code, match',
  [
    (403, 'GatedRepo', 'access is restricted: .* hf auth login'),
    (404, 'RepoNotFound', 'no such repository'),
    (401, 'RepoNotFound', 'no such repository, or it is private'),
    (404, 'RevisionNotFound', 'no such revision'),
    (500, '', 'cannot be downloaded'),
  ],
)
def test_refusals_of_the_hub(hub, status, code, match):
  hub.status, hub.error = status, code
  refused(hub, match)


@pytest.mark.parametrize(
  'name',
  [
    'hf://ann',
    'hf://ann/b/c',
    'hf://../b',
    'hf://ann/b@',
    'hf:/x',
    'hf://ann/b--c',
    'hf://ann/b@../c',
  ],
)
def test_invalid_names(name):
  with pytest.raises(RunError, match='give hf://OWNER/NAME'):
    methods.resolve(f'hf://{name}')


def test_the_missing_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(RunError, match=r"pip install -e '\.\[hub\]'"):
    methods.resolve('hf://ann/swatches')


def test_outputs_need_a_folder(capsys):
  with pytest.raises(RunError, match='read-only'):
    files.path('hf://ann/swatches')
  with pytest.raises(SystemExit):
    cli.main(['train', 'translate', '--data', 'swatches', '--workdir', 'hf://ann/swatches'])
  (line,) = capsys.readouterr().err.splitlines()
  assert 'exports on the hub are read-only' in line


def test_a_truncated_export_is_a_one_line_error(hub):
  hub.files['manifest.json'] = b'{"format": "step_jax.export/1", "con'
  with pytest.raises(RunError, match=r'manifest.json: is damaged \(.*download it again'):
    methods.find('hf://ann/swatches')
