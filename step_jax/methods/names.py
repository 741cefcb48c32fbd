"""Names of runs: folders, `shipped:NAME` and `hf://OWNER/NAME[@REVISION]`.

The last two are exports in this package and on the Hugging Face hub.
"""

import contextlib
import logging
import os
import pathlib
import re

from step_jax import files, places
from step_jax.errors import RunError, UserError, first_line, shown

log = logging.getLogger(__name__)

MANIFEST = 'manifest.json'
PARAMETERS = 'params.safetensors'
# Files of an export that are read, with their maximum sizes in bytes.
FILES = {MANIFEST: 16 << 20, PARAMETERS: 16 << 30}
SHIPPED = pathlib.Path(__file__).with_name('shipped')
_SHIPPED = 'shipped:'
_HUB = re.compile(r'hf:/+([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w-][\w./-]*))?')
_MOST_FILES = 1000
_TIMEOUT_SECONDS = 30


def resolve(name: str | os.PathLike) -> files.Path:
  """The folder of a run, which is only read.

  `shipped:NAME` is a folder of this package. An export on the Hugging Face hub is downloaded to the
  cache first.

  Raises:
    RunError: the name is not valid, or the export cannot be downloaded.
  """
  text = os.fspath(name)
  if text.startswith(_SHIPPED):
    if text not in shipped():
      raise RunError(f'{shown(text)}: no such run: choose one of {", ".join(shipped())}')
    return SHIPPED / text.removeprefix(_SHIPPED)
  if not text.startswith('hf:/'):
    return files.path(text)
  match = _HUB.fullmatch(text)
  if not match or '..' in text or '--' in match[1]:
    raise RunError(f'{shown(text)}: not a run on the hub: give hf://OWNER/NAME[@REVISION]')
  return _download(f'hf://{text[4:].lstrip("/")}', match[1], match[2] or 'main')


def shipped() -> list[str]:
  """The names of the exports in this package; docs/results.md says how they were trained."""
  return [f'{_SHIPPED}{folder.name}' for folder in sorted(SHIPPED.iterdir()) if is_export(folder)]


def is_export(folder: files.Path) -> bool:
  """Whether a folder is an export."""
  return all((folder / name).is_file() for name in FILES)


def output(folder: files.Path, out: str | os.PathLike | None = None) -> files.Path:
  """Folder for outputs of a run: `out`, by default that of the run.

  Raises:
    RunError: there is no `out`, and the run is an export, which is read-only.
  """
  if not out and is_export(folder):
    raise RunError(f'{folder}: is an export, which is read-only: give --out')
  return files.path(out) if out else folder


def _download(name: str, repository: str, revision: str) -> pathlib.Path:
  """Downloads an export to the cache; without a network, uses the last download."""
  try:
    import huggingface_hub
    from huggingface_hub import errors
  except ModuleNotFoundError:
    raise RunError(f"{name}: huggingface_hub is missing: pip install -e '.[hub]'") from None
  api = huggingface_hub.HfApi(library_name='step_jax')

  def get(file: str, offline: bool = False) -> pathlib.Path:
    cache = places.cache() / 'hub'
    path = api.hf_hub_download(
      repository, file, revision=revision, cache_dir=cache, local_files_only=offline
    )
    return pathlib.Path(path)

  try:
    info = api.model_info(
      repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
    )
    sizes = _check(name, {file.rfilename: file.size for file in info.siblings or ()})
    paths = [get(file) for file in FILES]
    if [path.stat().st_size for path in paths] != sizes or paths[0].parent != paths[1].parent:
      raise RunError(f'{name}: changed during the download: try again')
    return paths[0].parent
  except UserError:
    raise
  except Exception as error:  # The errors of its HTTP library share no base class.
    if not isinstance(error, errors.HfHubHTTPError):
      with contextlib.suppress(errors.LocalEntryNotFoundError, ValueError):
        folder = [get(file, offline=True) for file in FILES][0].parent
        log.warning('%s: the hub cannot be reached, using the last download', name)
        return folder
    raise RunError(f'{name}: {_reason(error, errors)}') from None


def _check(name: str, sizes: dict[str, int | None]) -> list[int]:
  """Checks names and sizes of all files, and returns the sizes of those that are read.

  Raises:
    RunError: these are not the files of an export.
  """
  if len(sizes) > _MOST_FILES:
    raise RunError(f'{name}: not an export: it has {len(sizes)} files, more than {_MOST_FILES}')
  for file in sizes:
    path = pathlib.PurePosixPath(file)
    if path.is_absolute() or '..' in path.parts or '\\' in file:
      raise RunError(f'{name}: refused: the file name {shown(file)} leads out of the repository')
  for file, most in FILES.items():
    if file not in sizes:
      raise RunError(f'{name}: not an export: {file} is missing; step-jax export writes it')
    if not isinstance(sizes[file], int) or sizes[file] > most:
      raise RunError(f'{name}: refused: {file} has {sizes[file]} bytes, more than {most}')
  return [sizes[file] for file in FILES]


def _reason(error: Exception, errors) -> str:
  """What happened and what to do, in one line."""
  if isinstance(error, errors.GatedRepoError):
    return 'access is restricted: accept the terms on its page, then run hf auth login'
  if isinstance(error, errors.RepositoryNotFoundError):
    return 'no such repository, or it is private: check the name, or run hf auth login'
  if isinstance(error, errors.RevisionNotFoundError):
    return 'no such revision: give a branch, a tag or a commit'
  return f'cannot be downloaded ({first_line(error)}): check the network, then try again'
