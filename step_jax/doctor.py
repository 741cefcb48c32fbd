"""Describes this machine and the installation, and lists problems with solutions."""

import collections
import contextlib
import dataclasses
from importlib import metadata, util
import os
import pathlib
import platform
import shutil
import subprocess

import jax
from packaging import requirements

from step_jax import machine, places
from step_jax.errors import WeightsError
from step_jax.machine import version as _version
from step_jax.weights import nets, store
from step_jax.weights.convert import read

_PACKAGES = 'step_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy'
# Free disk space below which checkpoints soon fill the disk, or not even one fits; little memory.
_LITTLE_DISK, _NO_DISK, _LITTLE_MEMORY = 5 * 2**30, 2**29, 4 * 2**30
# Extra of setup.py -> modules that show whether it is installed.
_EXTRAS = {
  'cuda12': ['jax_cuda12_plugin'], 'cuda13': ['jax_cuda13_plugin'], 'tpu': ['libtpu'],
  'gcs': ['fsspec', 'gcsfs'], 'demo': ['gradio', 'sklearn'], 'bench': ['torch', 'faiss', 'sklearn'],
  'onnx': ['onnx', 'onnx_ir', 'onnxruntime', 'jax2onnx'], 'browser': ['playwright'],
  'test': ['pytest', 'hypothesis', 'nbclient'], 'fuzz': ['atheris'],
  'wandb': ['wandb'], 'hub': ['huggingface_hub'],
}  # fmt: skip
_PRECISION = {
  'cpu': 'float32 throughout; bfloat16 (--config.dtype=bfloat16) is slow here',
  'gpu': 'float32 products may run in TF32; --config.dtype=bfloat16 is faster still',
  'tpu': 'float32 products run in bfloat16 passes; --config.dtype=bfloat16 saves memory',
}
_size = lambda count: f'{count / 2**30:.1f} GiB'
_ask = lambda look: dataclasses.field(default_factory=look)


class Device(collections.namedtuple('Device', ['kind', 'memory'])):
  """A device of JAX; its memory in bytes, None if unknown."""


def _unmet():
  """Requirements of step_jax, from its metadata, that are not installed."""
  needed = metadata.requires('step_jax') if _version('step_jax') else ['step_jax>0']
  for requirement in map(requirements.Requirement, needed):
    version, bounds, marker = _version(requirement.name), requirement.specifier, requirement.marker
    applies = not marker or marker.evaluate({'extra': ''})
    if applies and not bounds.contains(version or '0', prereleases=True):
      yield f'{requirement.name} {version or "is missing"}, {bounds} is required'


def _devices() -> tuple[str, tuple[Device, ...], str]:
  try:
    limit = lambda device: (device.memory_stats() or {}).get('bytes_limit')
    devices = tuple(Device(device.device_kind, limit(device)) for device in jax.local_devices())
    return jax.default_backend(), devices, ''
  except (RuntimeError, AssertionError) as error:
    # JAX raises an AssertionError without a message if a platform does not exist.
    why = str(error) or f'no device for JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")}'
    return '', (), why.splitlines()[0]


def _gpu() -> str:
  """Name of the first NVIDIA GPU; `of unknown kind` if its driver is broken."""
  query = ['nvidia-smi', '--query-gpu=name,memory.total', '--format=csv,noheader']
  try:
    return subprocess.check_output(query, text=True, timeout=30).strip().partition('\n')[0]
  except (OSError, subprocess.SubprocessError):
    return 'of unknown kind' if pathlib.Path('/dev/nvidia0').exists() else ''


def _tpu_chips() -> list[pathlib.Path]:
  """Device files of TPU chips: `/dev/accel*`, or VFIO groups of newer ones if libtpu is there."""
  groups = pathlib.Path('/dev/vfio').glob('[0-9]*') if util.find_spec('libtpu') else ()
  return sorted(pathlib.Path('/dev').glob('accel[0-9]*')) or sorted(groups)


def _tpu_users() -> tuple[int, ...]:
  """Other processes that have a TPU chip open, as far as they are visible; only on Linux."""
  chips, users = set(map(str, _tpu_chips())), set()
  for link in pathlib.Path('/proc').glob('[0-9]*/fd/*') if chips else ():
    with contextlib.suppress(OSError):  # The process has ended, or belongs to another user.
      users |= {int(link.parts[2])} if os.readlink(link) in chips else set()
  return tuple(sorted(users - {os.getpid()}))


def _free(folder: pathlib.Path) -> int | None:
  """Free bytes on the disk of a folder, which need not exist; None if it is not writable."""
  existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
  return shutil.disk_usage(existing).free if os.access(existing, os.W_OK | os.X_OK) else None


def _weights(name: str) -> str:
  try:
    file = store.find(name)
  except WeightsError:
    return ''
  try:
    bundled = ' (bundled)' * (file.parent == store.BUNDLED)
    return f'{name}@{read(file, name)[1][:8]}{bundled}'
  except WeightsError as error:
    return f'!{error}'


@dataclasses.dataclass(frozen=True)
class Description:
  """Description of a machine; the defaults are those of this machine. Sizes are in bytes."""

  backend: str  # 'cpu', 'gpu' or 'tpu'; '' if JAX could not start, see `jax_error`.
  devices: tuple[Device, ...]
  jax_error: str
  disks: dict[str, int | None]  # Folder -> free bytes; None if it is not writable.
  compiled: str  # Cache of compiled programs; '' if disabled.
  compiled_files: int
  python: str = _ask(platform.python_version)
  packages: dict[str, str] = _ask(lambda: {name: _version(name) for name in _PACKAGES})
  unmet: tuple[str, ...] = _ask(lambda: tuple(_unmet()))
  jax_platforms: str = _ask(lambda: os.environ.get('JAX_PLATFORMS', ''))
  gpu: str = _ask(_gpu)
  tpu: bool = _ask(lambda: bool(_tpu_chips()))
  tpu_users: tuple[int, ...] = _ask(_tpu_users)
  cores: int = _ask(machine.cores)
  memory: int = _ask(machine.memory)
  weights: dict[str, str] = _ask(lambda: {name: _weights(name) for name in nets.NAMES})
  store: str = _ask(lambda: str(places.weights()))
  extras: dict = _ask(lambda: {it: all(map(util.find_spec, _EXTRAS[it])) for it in _EXTRAS})


def look(workdir: pathlib.Path | None = None) -> Description:
  """Inspects this machine, and the disk of a folder; changes and downloads nothing."""
  keeps = jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir or ''
  files = list(pathlib.Path(keeps).glob('*')) if keeps else []
  folders = [places.cache(), places.weights(), *([workdir] if workdir else [])]
  return Description(*_devices(), {str(it): _free(it) for it in folders}, str(keeps), len(files))


def problems(m: Description) -> list[str]:
  """Problems, each in one line with what to do."""
  on_cpu = m.backend == 'cpu' and 'cpu' not in m.jax_platforms.split(',')
  cuda = m.extras['cuda12'] or m.extras['cuda13']
  gpu, tpu = (f'there is a {it}, but JAX runs on the CPU' for it in (f'GPU ({m.gpu})', 'TPU'))
  return [line for applies, line in [
    (int(m.python.split('.')[1]) < 12, f'Python {m.python} is too old: install 3.12 or newer'),
    (m.unmet, f'{"; ".join(m.unmet)}: run `pip install -e .` in the checkout'),
    (m.packages['jax'].split('.')[:2] != m.packages['jaxlib'].split('.')[:2],
     'jax and jaxlib have different versions: run `pip install -U jax jaxlib`'),
    (m.tpu_users, f'TPU in use by process {", ".join(map(str, m.tpu_users))}: wait, or end it'),
    (m.jax_error, f'JAX cannot start ({m.jax_error}): set JAX_PLATFORMS=cpu to use the CPU'),
    (on_cpu and m.gpu and not cuda,
     f"{gpu}: pip install -e '.[cuda12]', or '.[cuda13]' if the driver is 580 or newer"),
    (on_cpu and m.gpu and cuda,
     f'{gpu} although a CUDA plugin is installed: CUDA_VISIBLE_DEVICES may hide it, or its driver '
     'may be too old (nvidia-smi: CUDA 13 needs 580 or newer, CUDA 12 needs 525)'),
    (on_cpu and m.tpu and not m.extras['tpu'], f"{tpu}: pip install -e '.[tpu]'"),
    (on_cpu and m.tpu and m.extras['tpu'] and not m.tpu_users, f'{tpu}: see the log of its start'),
    *((free is None, f'{folder} cannot be written to: change its permissions, or set other '
       'folders with STEP_JAX_CACHE and STEP_JAX_WEIGHTS') for folder, free in m.disks.items()),
    *((free < _LITTLE_DISK, f'the disk of {folder} is {"nearly " * (free > _NO_DISK)}full '
       f'({_size(free)} free): free some') for folder, free in m.disks.items() if free is not None),
    (m.memory < _LITTLE_MEMORY, f'only {_size(m.memory)} of memory: train with --size 64'),
    *((label.startswith('!'), label[1:]) for label in m.weights.values()),
  ] if applies]  # fmt: skip


def text(m: Description, wrong: list[str]) -> str:
  """Formats the description, with `-` for empty values, and the problems."""
  sections = {
    'Versions': {'Python': m.python, **m.packages},
    'Devices': {
      'JAX runs on': m.backend or m.jax_error,
      **{f'device {i}': kind + (f', {_size(memory)} for JAX' if memory else '')
         for i, (kind, memory) in enumerate(m.devices)},
      'precision': _PRECISION.get(m.backend), 'NVIDIA GPU': m.gpu,
    },
    'Machine': {
      'cores': m.cores, 'memory': _size(m.memory),
      **{folder: 'cannot be written to' if free is None else f'{_size(free)} free'
         for folder, free in m.disks.items()},
      'compiled programs': m.compiled and f'{m.compiled} ({m.compiled_files} files)',
    },
    f'Weights in {m.store}': {name: label.lstrip('!') for name, label in m.weights.items()},
    "Extras (pip install -e '.[NAME]')": {e: 'installed' * on for e, on in m.extras.items()},
  }  # fmt: skip
  lines = []
  for title, rows in sections.items():
    lines += [title, *(f'  {it:<{max(map(len, rows))}}  {rows[it] or "-"}' for it in rows), '']
  lines += ['Problems', *(f'  - {line}' for line in wrong)] if wrong else ['No problems found.']
  return '\n'.join(lines)
