"""Downloads from a local server: verified and converted, or no files are left."""

import hashlib
import http.server
import threading

import pytest
import weight_files as files

from step_jax.errors import WeightsError
from step_jax.weights import get, known, load_features


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    found = self.server.files.get(self.path.split('#')[0])
    self.send_response(200 if found else 404)
    body, promised = found or (b'', 0)
    if promised is not None:
      self.send_header('Content-Length', str(promised))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as made:
    made.files = {}
    made.url = f'http://127.0.0.1:{made.server_port}'
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()


@pytest.fixture
def body(tmp_path):
  state = files.torchvision('alexnet', files.arrays('alexnet', 2))
  return files.torch_save(tmp_path / 'x', state).read_bytes()


@pytest.fixture
def store(tmp_path, monkeypatch):
  monkeypatch.setenv('STEP_JAX_WEIGHTS', str(tmp_path / 'store'))
  monkeypatch.setenv('no_proxy', '*')
  return tmp_path / 'store'


def publish(monkeypatch, server, body, sha256='', path='/models/alexnet.pth'):
  sha256 = sha256 or hashlib.sha256(body).hexdigest()
  url = server.url + path
  entry = known.Published('alexnet', path.rpartition('/')[2], sha256, (server.url + '/gone', url))
  monkeypatch.setattr(known, 'PUBLISHED', (entry,))
  server.files[path] = body, len(body)


def test_gets_verifies_converts_and_stores(server, body, store, monkeypatch):
  publish(monkeypatch, server, body)
  assert get('alexnet') == store / 'alexnet.safetensors'
  assert [entry.name for entry in store.iterdir()] == ['alexnet.safetensors']
  features = load_features('alexnet', ['conv2'])
  assert features.lineage == 'torchvision' and features.label.startswith('alexnet@')


def test_keeps_the_old_file_if_the_new_one_is_not_the_published_one(
  server, body, store, monkeypatch
):
  publish(monkeypatch, server, body)
  get('alexnet')
  before = (store / 'alexnet.safetensors').read_bytes()
  publish(monkeypatch, server, body, '0' * 64)
  with pytest.raises(WeightsError, match='damaged or altered') as error:
    get('alexnet')
  assert 'HTTP 404' in str(error.value) and 'step-jax weights convert' in str(error.value)
  assert '\n' not in str(error.value)
  assert (store / 'alexnet.safetensors').read_bytes() == before
  assert [entry.name for entry in store.iterdir()] == ['alexnet.safetensors']


def test_a_truncated_download_leaves_no_file(server, body, store):
  server.files['/a.pth'] = body[:-1000], len(body)  # The server closes the connection.
  server.files['/b.pth'] = body[:-1000], None  # Without a content length.
  with pytest.raises(WeightsError, match='cut short after .*damaged or cut short'):
    get('alexnet', [f'{server.url}/a.pth', f'{server.url}/b.pth'])
  assert list(store.iterdir()) == []


def test_user_defined_addresses(server, body, store):
  server.files['/my%20file'] = body, len(body)
  digest = hashlib.sha256(body).hexdigest()
  with pytest.raises(WeightsError, match='not the expected one'):
    get('alexnet', [f'{server.url}/my%20file#sha256={digest[::-1]}'])
  assert list(store.iterdir()) == []
  assert get('alexnet', [f'{server.url}/my%20file#sha256={digest}']).exists()


def test_a_file_of_another_net_or_a_web_page(server, body, store):
  server.files['/x'] = body, len(body)
  server.files['/'] = b'<html>sign in</html>', None
  with pytest.raises(WeightsError, match='holds alexnet, not vgg16'):
    get('vgg16', [f'{server.url}/x'])
  with pytest.raises(WeightsError, match='web page'):
    get('vgg16', [f'{server.url}/'])
  assert list(store.iterdir()) == []


def test_only_http_and_known_names(store, tmp_path):
  for url in (f'file://{tmp_path}/x', str(tmp_path), 'ftp://localhost/x'):
    with pytest.raises(WeightsError, match='not an http address'):
      get('alexnet', [url])
  with pytest.raises(WeightsError, match='no weights are called'):
    get('resnet')
  with pytest.raises(WeightsError, match='refused|127'):
    get('alexnet', ['http://127.0.0.1:9/x'])


def test_a_path_with_parent_folders_stays_inside(server, body, store, tmp_path):
  server.files['/../../evil'] = body, len(body)
  assert get('alexnet', [f'{server.url}/../../evil']).parent == store
  assert not (tmp_path.parent / 'evil').exists() and not (tmp_path / 'evil').exists()
