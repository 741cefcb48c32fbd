"""Published data sets: their addresses and terms.

`get` downloads a data set and unpacks it into the folder of its preset (`fields.DATASETS`).
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib

from step_jax import download, files, untrusted
from step_jax.data import archives
from step_jax.errors import DataError, suggestion
from step_jax.fields import DATASETS

_SPLITS = ('train', 'val', 'test')
# Maximum size of an archive relative to its published size, and of its content relative to that.
_LONGEST, _INFLATION = 3, 4


@dataclasses.dataclass(frozen=True)
class Published:
  """A published data set.

  Attributes:
    about: description of its images.
    urls: addresses of its archive, in the order in which they are tried.
    megabytes: approximate size of the archive.
    terms: what is known about its licence, and where to read it.
    place: path of a file of the archive in the data set; see `archives.unpack`.
    sha256: SHA-256 of the archive; empty if none is published that could be verified elsewhere. The
      SHA-256 of the first download is then recorded and required for later downloads.
  """

  about: str
  urls: tuple[str, ...]
  megabytes: int
  terms: str
  place: archives.Place
  sha256: str = ''


def _pairs(path: pathlib.PurePosixPath) -> str | None:
  """`NAME/train/1.jpg` of pix2pix's archives as `train/1.jpg`."""
  parts = path.parts if path.parts[0] in _SPLITS else path.parts[1:]
  image = path.suffix.lower() in ('.jpg', '.png') and not path.name.startswith('.')
  return '/'.join(parts) if image and len(parts) > 1 and parts[0] in _SPLITS else None


def _cmp(path: pathlib.PurePosixPath) -> str | None:
  """`base/cmp_b0001.jpg` as `images/cmp_b0001.jpg`, and the label map of that name in `labels/`."""
  folder = {'.jpg': 'images', '.png': 'labels'}.get(path.suffix.lower())
  return f'{folder}/{path.name}' if folder and path.name.startswith('cmp_') else None


def _pix2pix(name: str, about: str, megabytes: int, terms: str) -> Published:
  urls = (
    f'https://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz',
    f'http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/{name}.tar.gz',
    f'https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets/{name}.tar.gz',
  )
  return Published(about, urls, megabytes, terms, _pairs)


_CMP = 'see https://cmp.felk.cvut.cz/~tylecr1/facade/'
PUBLISHED: Mapping[str, Published] = {
  'facades': _pix2pix(
    'facades', 'label map | photo of a facade', 29, f'from the CMP Facade Database: {_CMP}'
  ),
  'edges2shoes': _pix2pix(
    'edges2shoes',
    'edges | photo of a shoe',
    2000,
    'from UT Zappos50K, for academic, non-commercial use: see '
    'https://vision.cs.utexas.edu/projects/finegrained/utzap50k/',
  ),
  'edges2handbags': _pix2pix(
    'edges2handbags',
    'edges | photo of a handbag',
    8000,
    'product photos of Amazon, collected by the iGAN project; no licence is stated: see '
    'https://github.com/junyanz/iGAN',
  ),
  'maps': _pix2pix(
    'maps',
    'aerial photo | map',
    239,
    'from Google Maps; no licence is stated: see https://www.google.com/help/terms_maps/',
  ),
  'night2day': _pix2pix(
    'night2day',
    'photo by night | by day',
    1900,
    'from the Transient Attributes data set; no licence is stated: see '
    'http://transattr.cs.brown.edu/',
  ),
  'cityscapes': _pix2pix(
    'cityscapes',
    'photo of a street | label map',
    99,
    'from Cityscapes, for non-commercial use by registered users: register and accept the terms '
    'at https://www.cityscapes-dataset.com/license/',
  ),
  'cmp_facade': Published(
    'photos of facades with label maps (index PNG, 12 classes)',
    (
      'https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_base.zip',
      'http://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_base.zip',
    ),
    50,
    f'CMP Facade Database (base set): {_CMP}',
    _cmp,
  ),
}


def folder_of(name: str) -> pathlib.Path:
  """Folder in which the preset of a published data set expects it."""
  return pathlib.Path(DATASETS.get(name, {}).get('path', f'data/{name}'))


def remedy(folder: str | os.PathLike) -> str:
  """How to get the data set of a missing folder; empty if it is not the folder of a preset."""
  for name in PUBLISHED:
    if pathlib.Path(folder) == folder_of(name):
      return f'run `step-jax data get {name}`, or give --data {name}=FOLDER if you have it'
  return ''


def listing() -> str:
  """One line per data set: name, size, whether it is installed, description."""
  return '\n'.join(
    f'{name:16}{published.megabytes:6} MB  '
    f'{"downloaded" if folder_of(name).is_dir() else "not here":12}'
    f'{published.about}'
    for name, published in PUBLISHED.items()
  )


def get(
  name: str,
  out: pathlib.Path | None = None,
  urls: Sequence[str] = (),
  accept: Callable[[str], bool] = lambda terms: False,
  say: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
  """Downloads a data set and unpacks it.

  The folder is created atomically; an existing data set is not changed. Interrupted downloads are
  resumed. If no SHA-256 is published, that of the first download is recorded in
  `FOLDER.origin.json` and required for later downloads.

  Args:
    name: name in `PUBLISHED`.
    out: its folder; None: the folder of the preset.
    urls: http(s) addresses of the archive to use instead of the published ones; append
      `#sha256=HEX` to require a digest.
    accept: shows the terms to the user and returns whether they are accepted.
    say: prints a line of progress.

  Returns:
    The folder.

  Raises:
    DataError: there is no such data set, the terms were not accepted, the download failed, or the
      archive cannot be used.
  """
  if name not in PUBLISHED:
    raise DataError(f'no published data set is called {name!r}: {suggestion(name, PUBLISHED)}')
  published, out = PUBLISHED[name], out or folder_of(name)
  if out.is_dir() and any(out.iterdir()):
    say(f'{out}: is there already; remove it to download it again')
    return out
  about = f'{name} ({published.about}, {published.megabytes} MB): {published.terms}'
  if not accept(f'{about}. Terms change: check them there.'):
    raise DataError(f'{name}: its terms were not accepted: read them, then add --accept-licence')
  out.parent.mkdir(parents=True, exist_ok=True)
  partial = out.with_name(f'.{out.name}.download')
  partial.mkdir(exist_ok=True)
  with files.folder_lock(partial, fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
    if not locked:
      raise DataError(f'{out}: another process downloads it: wait for that one')
    url, archive = _download(name, published, out, urls or published.urls, partial)
    sha256 = _verified(published, out, url, archive, say)
    with files.temporary_folder(out.parent, out.name) as part:
      here = part / out.name
      here.mkdir()
      most = published.megabytes * 10**6 * _LONGEST * _INFLATION
      try:
        if not archives.unpack(archive, here, published.place, most):
          raise DataError(f'{url}: holds no images of {name}: give its archive with --url')
      except DataError:
        files.remove_folder(partial)
        raise
      with contextlib.suppress(FileNotFoundError):
        out.rmdir()  # It is empty.
      here.replace(out)
  origin = {'url': url, 'sha256': sha256, 'terms': published.terms}
  files.write_text(_origin(out), json.dumps(origin, indent=2) + '\n')
  files.remove_folder(partial)
  return out


def _download(
  name: str, published: Published, out: pathlib.Path, urls: Sequence[str], folder: pathlib.Path
) -> tuple[str, pathlib.Path]:
  """Downloads from the first address that works; returns it and the file."""
  failures = []
  for url in urls:
    # A download is resumed only from the same address.
    archive = folder / f'{hashlib.sha256(url.encode()).hexdigest()[:16]}.archive'
    try:
      if not archive.exists():
        download.fetch(url, archive, published.megabytes * 10**6 * _LONGEST)
      return url, archive
    except download.ERRORS as error:
      failures.append(f'{url}: {download.reason(error)}')
  with contextlib.suppress(OSError):
    folder.rmdir()  # Only works if nothing was downloaded.
  raise DataError(
    f'could not get {name} from {"; ".join(failures)}: re-run the command to continue, give a '
    f'mirror with --url, or unpack the archive into {out} yourself'
  )


def _verified(
  published: Published, out: pathlib.Path, url: str, archive: pathlib.Path, say: Callable
) -> str:
  """Checks the SHA-256 of an archive against the published one or the first download."""
  sha256, record = download.digest(archive), _origin(out)
  expected, where = published.sha256, 'that of the published archive'
  if not expected and record.is_file():
    try:
      expected = str(untrusted.read_json(record.read_text('utf-8'))['sha256'])
    except (ValueError, KeyError) as error:
      raise untrusted.damaged(record, error, 'remove it') from None
    where = f'that of the first download ({record}; remove it to accept the new archive)'
  if expected and sha256 != expected:
    files.remove_folder(archive.parent)
    raise DataError(f'{url}: its SHA-256 is {sha256[:16]}…, not {where}: use another address')
  if not expected:
    say(f'no SHA-256 of this archive is published: trusting this download, recorded in {record}')
  return sha256


def _origin(out: pathlib.Path) -> pathlib.Path:
  return out.with_name(f'{out.name}.origin.json')
