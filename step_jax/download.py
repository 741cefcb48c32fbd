"""Downloads over http(s) with a size limit, resuming, and progress on a terminal."""

import hashlib
import http.client
import json
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

from step_jax import untrusted

# Exceptions of `fetch`; `reason` describes them in one line.
ERRORS = (OSError, http.client.HTTPException, ValueError)

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
_RANGE_NOT_SATISFIABLE = 416


def fetch(url: str, path: pathlib.Path, most_bytes: int) -> None:
  """Downloads a file atomically.

  An interrupted download stays in `PATH.part`. The next call with the same address resumes it, if
  the server supports this and the file has not changed since.

  Args:
    url: address of the file; `#sha256=HEX` at the end is its expected digest.
    path: the file to write.
    most_bytes: maximum size.

  Raises:
    ValueError: the address is not http(s); the connection ended early; the file is too long, or has
      another digest.
    OSError, http.client.HTTPException: the file cannot be read or written.
  """
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ('http', 'https'):  # urllib would also open local files.
    raise ValueError('not an http address')
  part, about = (path.with_name(f'{path.name}.{end}') for end in ('part', 'part.json'))
  try:
    response = _open(url, _resumable(url, part, about))
  except urllib.error.HTTPError as error:
    if error.code != _RANGE_NOT_SATISFIABLE:
      raise
    response = _open(url, None)  # The part is longer than the file.
  with response:
    start = _first_byte(response)
    if not start:
      validator = _validator(response)
      about.write_text(json.dumps({'url': url, 'validator': validator}))
    elif start != part.stat().st_size:
      raise ValueError(f'the server sent bytes from {start} on, which were not requested')
    complete = _save(response, part, start, most_bytes)
  about.unlink()
  if not complete:
    part.unlink()
    raise ValueError(f'too long (more than {most_bytes} bytes)')
  expected = urllib.parse.parse_qs(parts.fragment).get('sha256', [''])[0].lower()
  sha256 = digest(part) if expected else ''
  if sha256 != expected:
    part.unlink()
    raise ValueError(f'its SHA-256 is {sha256}, not the expected one')
  part.replace(path)


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file, in hex."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def reason(error: Exception) -> str:
  """Reason of a failed download, in one line."""
  if isinstance(error, urllib.error.HTTPError):
    return f'HTTP {error.code}'
  if isinstance(error, urllib.error.URLError):
    return str(error.reason)
  return ' '.join(str(error).split()) or type(error).__name__


def _open(url: str, resume: tuple[int, str] | None) -> http.client.HTTPResponse:
  """Requests a file, or the rest of it if `resume` (first byte, validator) is still valid."""
  request = urllib.request.Request(url)
  if resume:
    request.add_header('Range', f'bytes={resume[0]}-')
    request.add_header('If-Range', resume[1])
  return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)


def _resumable(url: str, part: pathlib.Path, about: pathlib.Path) -> tuple[int, str] | None:
  """Number of bytes of a partial download, and the validator of its file; None if unusable."""
  try:
    notes = untrusted.read_json(about.read_text('utf-8'))
    size = part.stat().st_size
  except (OSError, ValueError):
    return None
  same = notes.get('url') == url and size and notes.get('validator')
  return (size, str(notes['validator'])) if same else None


def _validator(response: http.client.HTTPResponse) -> str:
  """Identifies the version of a file on the server; empty if the server gives none."""
  tag = response.headers.get('ETag') or ''
  return tag if tag.startswith('"') else response.headers.get('Last-Modified') or ''


def _first_byte(response: http.client.HTTPResponse) -> int:
  if response.status != http.client.PARTIAL_CONTENT:
    return 0
  match = re.match(r'bytes (\d+)-', response.headers.get('Content-Range') or '')
  if not match:
    raise ValueError('the server does not report which part of the file it sends')
  return int(match[1])


def _save(
  response: http.client.HTTPResponse, path: pathlib.Path, start: int, most_bytes: int
) -> bool:
  """Writes a response to a file from byte `start` on, with progress if stderr is a terminal.

  Returns:
    True if the file is complete, False if it is too long.

  Raises:
    ValueError: the connection ended early.
  """
  length = int(response.headers.get('Content-Length') or 0)
  total, done = start + length if length else 0, start
  with path.open('ab' if start else 'wb') as file:
    while chunk := response.read(_CHUNK):
      done += len(chunk)
      if max(done, total) > most_bytes:
        return False
      file.write(chunk)
      if sys.stderr.isatty():
        share = f' of {total / 1e6:.1f}' if total else ''
        print(f'\r{done / 1e6:.1f}{share} MB', end='', file=sys.stderr, flush=True)
  if sys.stderr.isatty():
    print(file=sys.stderr)
  if done < total:  # http.client does not check it.
    raise ValueError(f'cut short after {done} of {total} bytes')
  return True
