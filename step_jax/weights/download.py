"""Fetching published weights, only when a person asks for it: download, verify, convert, store."""

from collections.abc import Sequence
import http.client
import pathlib
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from step_jax.errors import WeightsError
from step_jax.weights import known, store
from step_jax.weights.convert import convert

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
# VGG16 with its classifier has 553 MB.
_MOST_BYTES = 2**31


def get(name: str, urls: Sequence[str] | None = None) -> pathlib.Path:
  """Downloads the weights of a net or of LPIPS heads into the store.

  Args:
    name: `vgg16` (the authors' weights as Keras has them: the lineage of the original StEP),
      `alexnet`, `squeezenet1_1` (torchvision's), `inception` (pytorch-fid's), `lpips_alex`,
      `lpips_vgg`, `lpips_squeeze`, and these with `_v0.0` for LPIPS 0.0.
    urls: http(s) addresses to try in turn instead of the published ones, for a mirror or another
      file of the same net; a file is verified by the published SHA-256 of its name, or by
      `#sha256=…` at the end of its address. Of a name that nobody published, without that, only
      the names, shapes and values of the tensors are checked.

  Returns:
    The file in the store.

  Raises:
    WeightsError: nothing could be downloaded, or it is not what was published. Nothing of a
      failed download stays, and a file that was in the store before stays as it was.
  """
  stored = store.place(name)
  failures = []
  for url in urls or known.by_name(name).urls:
    try:
      stored.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryDirectory(prefix='.download-', dir=stored.parent) as folder:
        return convert(_fetch(url, pathlib.Path(folder)), name, stored)
    except (OSError, http.client.HTTPException, ValueError, WeightsError) as error:
      failures.append(f'{url}: {_reason(error)}')
  raise WeightsError(
    f'could not get {name} from {"; ".join(failures)}; or download it by other means and run '
    '`step-jax weights convert FILE`'
  )


def _fetch(url: str, folder: pathlib.Path) -> pathlib.Path:
  """Downloads and verifies one file, below `folder` under the last two parts of its address."""
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ('http', 'https'):  # urllib would open local files, too.
    raise ValueError('not an http address')
  names = [part for part in parts.path.split('/') if part not in ('', '.', '..')] or ['weights']
  path = folder.joinpath(*names[-2:])
  path.parent.mkdir(parents=True, exist_ok=True)
  with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
    _save(response, path)
  wanted = urllib.parse.parse_qs(parts.fragment).get('sha256', [''])[0].lower()
  if wanted and known.digest(path) != wanted:
    raise WeightsError(f'its SHA-256 is {known.digest(path)}, not the one asked for')
  return path


def _save(response: http.client.HTTPResponse, path: pathlib.Path) -> None:
  """Writes a response to a file, with progress on stderr if someone looks there.

  Raises:
    ValueError: the connection ended before the whole file had come, or it does not end.
  """
  total, done = int(response.headers.get('Content-Length') or 0), 0
  with path.open('wb') as file:
    while chunk := response.read(_CHUNK):
      file.write(chunk)
      done += len(chunk)
      if done > _MOST_BYTES:
        raise ValueError(f'longer than any weights (more than {_MOST_BYTES} bytes)')
      if sys.stderr.isatty():
        share = f' of {total / 1e6:.1f}' if total else ''
        print(f'\r{path.name}: {done / 1e6:.1f}{share} MB', end='', file=sys.stderr, flush=True)
  if sys.stderr.isatty():
    print(file=sys.stderr)
  if done < total:  # http.client does not mind.
    raise ValueError(f'cut short after {done} of {total} bytes')


def _reason(error: Exception) -> str:
  """One line about why a download failed."""
  if isinstance(error, urllib.error.HTTPError):
    return f'HTTP {error.code}'
  if isinstance(error, urllib.error.URLError):
    return str(error.reason)
  return ' '.join(str(error).split()) or type(error).__name__
