"""A bucket of Google Cloud Storage in memory, with a part of the JSON API over HTTP.

It supports the requests of tensorstore, gcsfs and google-cloud-storage: reads with ranges and
preconditions, three kinds of uploads, paged listings, single and batched deletes, copies. As in the
real service, objects are replaced atomically, there are no appends or locks, and no folders.
"""

import collections
from collections.abc import Callable
import dataclasses
import datetime
import email
import email.policy
import hashlib
import http.server
import itertools
import json
import re
import threading
import urllib.parse

# Small, so that listings span several pages.
_PAGE = 50


@dataclasses.dataclass(frozen=True)
class Stored:
  """A stored object."""

  name: str
  data: bytes
  generation: int
  updated: str


class Bucket:
  """A running server with one bucket.

  Attributes:
    name: name of the bucket; no other bucket exists.
    url: URL of the server.
    objects: name -> object.
    refuse: takes a method, the name of an object and a query; returns the status with which to
      refuse the request, or 0 to serve it.
    requests: number of calls of each method on each object.
  """

  def __init__(self, name: str = 'bucket'):
    self.name = name
    self.objects: dict[str, Stored] = {}
    self.refuse: Callable[[str, str, dict], int] = lambda method, name, query: 0
    self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
    self.lock = threading.RLock()
    self.uploads: dict[str, tuple[str, dict, bytearray]] = {}
    self._generations = itertools.count(1_000_000)
    handler = type('Handler', (_Handler,), {'bucket': self})
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self._server.daemon_threads = True
    self.url = f'http://127.0.0.1:{self._server.server_port}'
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def variables(self) -> dict[str, str]:
    """Environment variables that direct the libraries to this server."""
    return {
      'STORAGE_EMULATOR_HOST': self.url,
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'nobody',
      'NO_GCE_CHECK': 'true',
    }

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()

  def names(self, prefix: str = '') -> list[str]:
    """Names of all objects, sorted."""
    with self.lock:
      return sorted(name for name in self.objects if name.startswith(prefix))

  def read(self, name: str) -> bytes:
    return self.objects[name].data

  def put(self, name: str, data: bytes) -> Stored:
    now = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    with self.lock:
      self.objects[name] = Stored(name, bytes(data), next(self._generations), now)
      return self.objects[name]

  def remove(self, prefix: str) -> None:
    with self.lock:
      for name in self.names(prefix):
        del self.objects[name]


class _Refused(Exception):
  def __init__(self, status: int):
    self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
  bucket: Bucket
  protocol_version = 'HTTP/1.1'
  # Responses are small and many: disable Nagle's algorithm.
  disable_nagle_algorithm = True
  wbufsize = -1

  def log_message(self, *args):
    pass

  def handle_one_request(self):
    try:
      super().handle_one_request()
    except (ConnectionError, BrokenPipeError):  # The client was killed.
      self.close_connection = True

  def _body(self) -> bytes:
    if self.headers.get('Transfer-Encoding', '').lower() == 'chunked':
      parts = []
      while size := int(self.rfile.readline().split(b';')[0], 16):
        parts.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b''.join(parts)
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def _serve(self):
    body = self._body()
    try:
      status, headers, answer = self._answer(self.command, self.path, body)
    except _Refused as refused:
      status, headers = refused.status, {'Content-Type': 'application/json'}
      answer = json.dumps({'error': {'code': status, 'message': f'refused with {status}'}}).encode()
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    if status not in (204, 304):
      self.send_header('Content-Length', str(len(answer)))
    self.end_headers()
    if status not in (204, 304) and self.command != 'HEAD':
      self.wfile.write(answer)

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

  def _answer(self, method: str, target: str, body: bytes) -> tuple[int, dict, bytes]:
    url = urllib.parse.urlsplit(target)
    query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query, True).items()}
    if url.path.startswith('/batch/'):
      return self._batch(body)
    found = re.fullmatch(
      r'(/upload|/download)?(?:/storage/v1)?/b/([^/]+)(?:/o(?:/(.*))?)?', url.path
    )
    if not found:
      raise _Refused(404)
    room, bucket, rest = found[1], found[2], found[3] or ''
    if urllib.parse.unquote(bucket) != self.bucket.name:
      raise _Refused(404)
    rest, _, destination = re.sub(
      r'/(copyTo|rewriteTo|moveTo)/(b/[^/]+/)?o/', '\0', rest
    ).partition('\0')
    verb = re.search(r'/(copyTo|rewriteTo|moveTo)/', url.path)
    name, destination = urllib.parse.unquote(rest), urllib.parse.unquote(destination)
    told = query.get('name') or destination or name
    with self.bucket.lock:
      self.bucket.requests[method, told] += 1
    if status := self.bucket.refuse(method, told, query):
      raise _Refused(status)
    if room == '/upload':
      return self._upload(method, query, body)
    if verb:
      return self._copy(verb[1], name, destination)
    if name:
      return self._object(method, name, query, room == '/download')
    if re.search('/o/?$', url.path):
      return self._list(query)
    about = {'kind': 'storage#bucket', 'name': self.bucket.name, 'id': self.bucket.name}
    return _json(
      {**about, 'location': 'NOWHERE', 'storageClass': 'STANDARD', 'metageneration': '1'}
    )

  def _object(self, method, name, query, download):
    with self.bucket.lock:
      stored = self.bucket.objects.get(name)
      self._check(stored, query)
      if stored is None:
        raise _Refused(404)
      if method == 'DELETE':
        del self.bucket.objects[name]
        return 204, {}, b''
    if not download and query.get('alt') != 'media':
      return _json(self._described(stored))
    if query.get('ifGenerationNotMatch') == str(stored.generation):
      raise _Refused(304)
    headers = {
      'Content-Type': 'application/octet-stream',
      'x-goog-generation': str(stored.generation),
      'x-goog-metageneration': '1',
      'x-goog-stored-content-length': str(len(stored.data)),
    }
    asked = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range') or '')
    if not asked:
      return 200, headers, stored.data
    size = len(stored.data)
    first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
    last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
    if first > last:
      raise _Refused(416)
    headers['Content-Range'] = f'bytes {first}-{last}/{size}'
    return 206, headers, stored.data[first : last + 1]

  def _check(self, stored: Stored | None, query: dict) -> None:
    generation = str(stored.generation) if stored else '0'
    if query.get('ifGenerationMatch', generation) != generation:
      raise _Refused(412)

  def _upload(self, method, query, body):
    if method == 'PUT' or 'upload_id' in query:
      return self._continue(query['upload_id'], body)
    kind = query.get('uploadType')
    if kind == 'media':
      return self._put(query['name'], body, query)
    if kind == 'multipart':
      # Parsed by hand: the email parser would strip bytes at the end of an image as a line break.
      boundary = re.search(r'boundary=[\'"]?([^\'";]+)', self.headers['Content-Type'])[1].encode()
      parts = re.split(rb'\r?\n?--' + re.escape(boundary) + rb'(?:--)?\r?\n?', body)[1:3]
      about, data = (re.split(rb'\r?\n\r?\n', part, maxsplit=1)[1] for part in parts)
      return self._put(query.get('name') or json.loads(about)['name'], data, query)
    if kind == 'resumable':
      name = query.get('name') or json.loads(body)['name']
      with self.bucket.lock:
        identity = str(len(self.bucket.uploads))
        self.bucket.uploads[identity] = name, query, bytearray()
      place = f'/upload/storage/v1/b/{self.bucket.name}/o?uploadType=resumable&upload_id={identity}'
      return 200, {'Location': self.bucket.url + place}, b''
    raise _Refused(400)

  def _continue(self, identity, body):
    name, query, data = self.bucket.uploads[identity]
    asked = re.fullmatch(r'bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)', self.headers['Content-Range'])
    if asked[1]:
      if int(asked[1]) != len(data):
        raise _Refused(400)
      data += body
    if asked[3] != '*' and int(asked[3]) == len(data):
      return self._put(name, data, query)
    return 308, {'Range': f'bytes=0-{len(data) - 1}'} if data else {}, b''

  def _put(self, name, data, query):
    with self.bucket.lock:
      self._check(self.bucket.objects.get(name), query)
      return _json(self._described(self.bucket.put(name, data)))

  def _copy(self, verb, name, destination):
    with self.bucket.lock:
      if name not in self.bucket.objects:
        raise _Refused(404)
      stored = self.bucket.put(destination, self.bucket.read(name))
      if verb == 'moveTo':
        del self.bucket.objects[name]
    found = self._described(stored)
    return _json({'done': True, 'resource': found} if verb == 'rewriteTo' else found)

  def _list(self, query):
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
    entries = {}
    for name in self.bucket.names(prefix):
      head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ('', '', '')
      entries[prefix + head + found if found else name] = bool(found)
    first, last = query.get('startOffset', ''), query.get('endOffset', '')
    left = [
      entry
      for entry in sorted(entries)
      if entry > query.get('pageToken', '') and entry >= first and (not last or entry < last)
    ]
    page = left[: min(_PAGE, int(query.get('maxResults', _PAGE)))]
    with self.bucket.lock:
      objects = [self.bucket.objects.get(entry) for entry in page if not entries[entry]]
    answer = {
      'kind': 'storage#objects',
      'items': [self._described(stored) for stored in objects if stored],
      'prefixes': [entry for entry in page if entries[entry]],
    }
    return _json(answer | ({'nextPageToken': page[-1]} if len(page) < len(left) else {}))

  def _batch(self, body):
    head = f'Content-Type: {self.headers["Content-Type"]}\r\n\r\n'.encode()
    parts = email.message_from_bytes(head + body.lstrip(), policy=email.policy.HTTP).get_payload()
    answers = []
    for part in parts:
      method, target, *_ = part.get_payload().split(None, 2)
      try:
        status, _, answer = self._answer(method, target, b'')
      except _Refused as refused:
        status, answer = refused.status, b'{"error": {"message": "refused"}}'
      answers.append(
        f'--batch\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} Told\r\n'
        f'Content-Type: application/json\r\n\r\n{answer.decode()}\r\n'
      )
    told = ''.join(answers) + '--batch--'
    return 200, {'Content-Type': 'multipart/mixed; boundary=batch'}, told.encode()

  def _described(self, stored: Stored) -> dict:
    return {
      'kind': 'storage#object',
      'id': f'{self.bucket.name}/{stored.name}/{stored.generation}',
      'name': stored.name,
      'bucket': self.bucket.name,
      'generation': str(stored.generation),
      'metageneration': '1',
      'contentType': 'application/octet-stream',
      'size': str(len(stored.data)),
      'etag': hashlib.md5(stored.data).hexdigest(),
      'timeCreated': stored.updated,
      'updated': stored.updated,
      'storageClass': 'STANDARD',
    }


def _json(answer: dict) -> tuple[int, dict, bytes]:
  return 200, {'Content-Type': 'application/json; charset=UTF-8'}, json.dumps(answer).encode()
