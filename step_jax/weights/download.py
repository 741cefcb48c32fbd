"""Gets published weights on request: download, verify, convert, store."""

from collections.abc import Sequence
import pathlib
import tempfile
import urllib.parse

from step_jax import download
from step_jax.errors import WeightsError
from step_jax.weights import known, store
from step_jax.weights.convert import convert

# VGG16 with its classifier has 553 MB.
_MOST_BYTES = 2**31


def get(name: str, urls: Sequence[str] | None = None) -> pathlib.Path:
  """Downloads the weights of a network or of LPIPS heads into the weights store.

  Args:
    name: `vgg16` (the authors' weights in Keras' format, those of the original StEP), `alexnet`,
      `squeezenet1_1` (torchvision's), `inception` (pytorch-fid's), `lpips_alex`, `lpips_vgg`,
      `lpips_squeeze`; append `_v0.0` for LPIPS 0.0.
    urls: http(s) addresses to try in order instead of the published ones, for a mirror or another
      file of the same network. A file is verified with the published SHA-256 of its name, or with
      `#sha256=…` at the end of its address. Otherwise, only names, shapes and values of tensors
      are checked.

  Returns:
    The file in the store.

  Raises:
    WeightsError: the download failed, or the file is not the published one. Failed downloads leave
      no files, and do not change a file in the store.
  """
  stored = store.place(name)
  failures = []
  for url in urls or known.by_name(name).urls:
    try:
      stored.parent.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryDirectory(prefix='.download-', dir=stored.parent) as folder:
        return convert(_fetch(url, pathlib.Path(folder)), name, stored)
    except (*download.ERRORS, WeightsError) as error:
      failures.append(f'{url}: {download.reason(error)}')
  raise WeightsError(
    f'could not get {name} from {"; ".join(failures)}; or download it by other means and run '
    '`step-jax weights convert FILE`'
  )


def _fetch(url: str, folder: pathlib.Path) -> pathlib.Path:
  """Downloads one file to `folder`, named after the last two parts of its address."""
  parts = urllib.parse.urlsplit(url).path.split('/')
  names = [part for part in parts if part not in ('', '.', '..')] or ['weights']
  path = folder.joinpath(*names[-2:])
  path.parent.mkdir(parents=True, exist_ok=True)
  download.fetch(url, path, _MOST_BYTES)
  return path
