"""What is installed, found and wrong on this machine, in words."""

from collections.abc import Iterator
import dataclasses
from importlib import metadata, util
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import textwrap

import jax
from packaging import requirements

from step_jax import places, weights
from step_jax.errors import WeightsError
from step_jax.models import FEATURE_NETS
from step_jax.weights import nets, store

PYTHON = (3, 12)
_PACKAGES = (
  'step_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy',
)  # fmt: skip
# Less is soon full of checkpoints; far less, and not one can be written.
_LITTLE_DISK = 5 * 2**30
_NO_DISK = 2**29
_LITTLE_MEMORY = 4 * 2**30
# Extra of setup.py -> modules by which one sees that it is installed.
_EXTRAS = {
  'cuda12': ('jax_cuda12_plugin',),
  'cuda13': ('jax_cuda13_plugin',),
  'tpu': ('libtpu',),
  'gcs': ('fsspec', 'gcsfs'),
  'demo': ('gradio', 'sklearn'),
  'onnx': ('onnx', 'onnx_ir', 'onnxruntime', 'jax2onnx'),
  'bench': ('torch', 'faiss', 'sklearn'),
  'test': ('pytest', 'hypothesis', 'nbclient'),
  'browser': ('playwright',),
  'fuzz': ('atheris',),
}


@dataclasses.dataclass(frozen=True)
class Device:
  """A device that JAX sees; `memory` in bytes, None where it does not say."""

  kind: str
  memory: int | None


@dataclasses.dataclass(frozen=True)
class Found:
  """What a look at the machine has found.

  Attributes:
    python: version of Python.
    packages: name -> version, '' where it is missing or broken.
    unmet: packages that are missing or of a version that step_jax cannot do with, each as
      `NAME VERSION, where WANTED is needed`.
    backend: `cpu`, `gpu` or `tpu`; '' where JAX could not start.
    devices: those of this host.
    jax_error: why JAX could not start, or ''.
    jax_platforms: the variable that picks the platform, or ''.
    gpu: name of an NVIDIA GPU that the system has, or ''.
    tpu: whether the system has TPU chips.
    tpu_users: ids of other processes that hold them.
    cores: processors that this process may use.
    memory: bytes of main memory, None where unknown.
    disks: folder -> bytes free; None where it cannot be written to.
    weights: net or heads -> label, or what is wrong with its file after `!`; missing ones have ''.
    store: folder of the weights.
    compiled: where compiled programs are kept; '' where they are not.
    compiled_files: how many files are there.
    extras: extra of setup.py -> whether it is installed.
  """

  python: str
  packages: dict[str, str]
  unmet: tuple[str, ...]
  backend: str
  devices: tuple[Device, ...]
  jax_error: str
  jax_platforms: str
  gpu: str
  tpu: bool
  tpu_users: tuple[int, ...]
  cores: int
  memory: int | None
  disks: dict[str, int | None]
  weights: dict[str, str]
  store: str
  compiled: str
  compiled_files: int
  extras: dict[str, bool]


def report(workdir: pathlib.Path | None = None) -> tuple[str, bool]:
  """What `step-jax doctor` prints, and whether nothing is wrong.

  Args:
    workdir: folder whose disk is looked at too; it need not be there yet.
  """
  found = look(workdir)
  wrong = problems(found)
  return text(found, wrong), not wrong


def look(workdir: pathlib.Path | None = None) -> Found:
  """Looks at this machine; changes nothing, and downloads nothing."""
  backend, devices, error = _devices()
  keeps = jax.config.jax_enable_compilation_cache and jax.config.jax_compilation_cache_dir
  compiled = pathlib.Path(jax.config.jax_compilation_cache_dir) if keeps else None
  folders = [places.cache(), places.weights(), *([workdir] if workdir else [])]
  return Found(
    python=platform.python_version(),
    packages={name: _version(name) for name in _PACKAGES},
    unmet=tuple(_unmet()),
    backend=backend,
    devices=devices,
    jax_error=error,
    jax_platforms=os.environ.get('JAX_PLATFORMS', ''),
    gpu=_gpu(),
    tpu=bool(_tpu_chips()),
    tpu_users=_tpu_users(),
    cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
    memory=_memory(),
    disks={str(folder): _free(folder) for folder in folders},
    weights={name: _weights(name) for name in nets.NAMES},
    store=str(places.weights()),
    compiled=str(compiled) if compiled else '',
    compiled_files=len(list(compiled.iterdir())) if compiled and compiled.is_dir() else 0,
    extras={extra: all(map(util.find_spec, modules)) for extra, modules in _EXTRAS.items()},
  )


def problems(found: Found) -> list[str]:
  """What is wrong, and what to do about it, one line each."""
  return [*_of_install(found), *_of_devices(found), *_of_disks(found), *_of_weights(found)]


def _of_install(found: Found):
  if tuple(map(int, found.python.split('.')[:2])) < PYTHON:
    yield f'Python {found.python} is too old: make an environment with 3.12 or newer'
  if found.unmet:
    yield f'{"; ".join(found.unmet)}: run `pip install -e .` in the checkout'
  jax_, jaxlib = found.packages.get('jax', ''), found.packages.get('jaxlib', '')
  if jax_ and jaxlib and jax_.split('.')[:2] != jaxlib.split('.')[:2]:
    yield f'jax {jax_} and jaxlib {jaxlib} do not belong together: run `pip install -U jax jaxlib`'


def _of_devices(found: Found):
  if found.tpu_users:
    ids = ', '.join(map(str, found.tpu_users))
    yield f'the TPU is in use by process {ids}: one at a time; end that, or wait for it'
  if found.jax_error:
    yield f'JAX cannot start ({found.jax_error}): JAX_PLATFORMS=cpu runs on the CPU meanwhile'
    return
  if found.backend == 'cpu' and 'cpu' not in found.jax_platforms.split(','):
    if found.gpu and not (found.extras['cuda12'] or found.extras['cuda13']):
      yield (
        f"there is a GPU ({found.gpu}), but JAX runs on the CPU: pip install -e '.[cuda12]', or "
        "'.[cuda13]' where the driver is 580 or newer"
      )
    elif found.gpu:
      yield (
        f'there is a GPU ({found.gpu}), but JAX runs on the CPU though its CUDA plugin is '
        'installed: CUDA_VISIBLE_DEVICES may hide it, or its driver may be too old (nvidia-smi: '
        'CUDA 13 needs 580 or newer, CUDA 12 needs 525)'
      )
    if found.tpu and not found.extras['tpu']:
      yield "there is a TPU, but JAX runs on the CPU: pip install -e '.[tpu]'"
    elif found.tpu and not found.tpu_users:
      yield 'there is a TPU, but JAX runs on the CPU: look for what it says when it starts'


def _of_disks(found: Found):
  for folder, free in found.disks.items():
    if free is None:
      yield (
        f'{folder} cannot be written to: mend its permissions, or choose other folders by '
        'STEP_JAX_CACHE and STEP_JAX_WEIGHTS'
      )
    elif free < _NO_DISK:
      yield f'the disk of {folder} is full ({_size(free)} free): make room before training'
    elif free < _LITTLE_DISK:
      yield f'the disk of {folder} is nearly full ({_size(free)} free): make room'
  if found.memory is not None and found.memory < _LITTLE_MEMORY:
    yield f'{_size(found.memory)} of memory are little: use small pictures (--size 64) and batches'


def _of_weights(found: Found):
  for label in found.weights.values():
    if label.startswith('!'):
      yield label[1:]
  if not any(found.weights[net] for net in FEATURE_NETS):
    yield (
      f'no weights of a feature net in {found.store}: run `step-jax weights get vgg16`, or '
      '`step-jax weights convert FILE` where there is no network; without them training wants '
      '--weights random'
    )


def text(found: Found, wrong: list[str]) -> str:
  """All that was found, and what is wrong, for people."""
  sections = {
    'Versions': [('Python', found.python), *found.packages.items()],
    'Devices': _device_lines(found),
    'Machine': [
      ('cores', str(found.cores)),
      ('memory', _size(found.memory)),
      *((folder, _free_text(free)) for folder, free in found.disks.items()),
      ('compiled programs', _compiled(found)),
    ],
    f'Weights in {found.store}': [
      (name, label.lstrip('!') or 'not there') for name, label in found.weights.items()
    ],
    "Extras (pip install -e '.[NAME]')": [
      (name, 'installed' if there else 'not installed') for name, there in found.extras.items()
    ],
  }
  lines = []
  for title, rows in sections.items():
    width = max(len(name) for name, _ in rows)
    lines += [title, *(f'  {name:<{width}}  {value or "missing"}' for name, value in rows), '']
  if not wrong:
    return '\n'.join([*lines, 'Nothing is wrong.'])
  return '\n'.join([*lines, 'What is wrong', *map(_item, wrong)])


def _item(line: str) -> str:
  """A line of a list, broken where it is long but never inside of a word: paths are copied."""
  return textwrap.fill(
    line, 100, initial_indent='  - ', subsequent_indent='    ',
    break_long_words=False, break_on_hyphens=False,
  )  # fmt: skip


def _device_lines(found: Found) -> list[tuple[str, str]]:
  rows = [('JAX runs on', found.backend or found.jax_error)]
  for i, device in enumerate(found.devices):
    memory = f', {_size(device.memory)} for JAX' if device.memory else ''
    rows.append((f'device {i}', device.kind + memory))
  notes = {
    'cpu': 'float32 throughout; bfloat16 (--config.dtype=bfloat16) is slow here',
    'gpu': 'float32 products may run in TF32; --config.dtype=bfloat16 is faster still',
    'tpu': 'float32 products run in bfloat16 passes; --config.dtype=bfloat16 saves memory',
  }
  if found.backend in notes:
    rows.append(('precision', notes[found.backend]))
  if found.gpu:
    rows.append(('NVIDIA GPU', found.gpu))
  return rows


def _compiled(found: Found) -> str:
  if not found.compiled:
    return 'not kept: every start compiles anew'
  return f'{found.compiled} ({found.compiled_files} files)'


def _free_text(free: int | None) -> str:
  return 'cannot be written to' if free is None else f'{_size(free)} free'


def _size(count: int | None) -> str:
  return 'unknown' if count is None else f'{count / 2**30:.1f} GiB'


def _version(name: str) -> str:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return ''


def _unmet() -> Iterator[str]:
  """What step_jax needs, by its own metadata, and does not find."""
  try:
    needed = metadata.requires('step_jax') or []
  except metadata.PackageNotFoundError:
    yield 'step_jax is not installed'
    return
  for requirement in map(requirements.Requirement, needed):
    if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
      continue
    there = _version(requirement.name)
    if not requirement.specifier.contains(there or '0', prereleases=True):
      yield f'{requirement.name} {there or "is missing"}, where {requirement.specifier} is needed'


def _devices() -> tuple[str, tuple[Device, ...], str]:
  try:
    found = jax.local_devices()
    devices = tuple(
      Device(d.device_kind, (d.memory_stats() or {}).get('bytes_limit')) for d in found
    )
    return jax.default_backend(), devices, ''
  except (RuntimeError, AssertionError) as error:
    # An assertion without a word is how JAX takes a platform that is not there.
    why = str(error) or f'nothing here is of JAX_PLATFORMS={os.environ.get("JAX_PLATFORMS", "")}'
    return '', (), why.splitlines()[0]


def _gpu() -> str:
  """Name of the first NVIDIA GPU, by its driver."""
  tool = shutil.which('nvidia-smi')
  if tool:
    query = [tool, '--query-gpu=name,memory.total', '--format=csv,noheader']
    try:
      answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
      return answer.stdout.splitlines()[0].strip() if answer.stdout.strip() else ''
    except (OSError, subprocess.SubprocessError):
      pass  # A broken driver; the device file tells of the GPU all the same.
  return 'of unknown kind' if pathlib.Path('/dev/nvidia0').exists() else ''


def _tpu_chips() -> list[pathlib.Path]:
  """Device files of TPU chips: `/dev/accel*`, and on newer ones VFIO groups beside libtpu."""
  chips = sorted(pathlib.Path('/dev').glob('accel[0-9]*'))
  if not chips and util.find_spec('libtpu'):
    chips = sorted(pathlib.Path('/dev/vfio').glob('[0-9]*'))
  return chips


def _tpu_users() -> tuple[int, ...]:
  """Other processes that have a TPU chip open, as far as we may see."""
  chips, users = set(map(str, _tpu_chips())), set()
  if not chips or not sys.platform.startswith('linux'):
    return ()
  for link in pathlib.Path('/proc').glob('[0-9]*/fd/*'):
    try:
      if os.readlink(link) in chips:
        users.add(int(link.parts[2]))
    except OSError:
      continue  # Gone, or of another user.
  return tuple(sorted(users - {os.getpid()}))


def _memory() -> int | None:
  """Main memory; less where a container is given less."""
  limits = []
  path = pathlib.Path('/proc/meminfo')
  if path.is_file():
    kilobytes = re.search(r'MemTotal:\s+(\d+) kB', path.read_text())
    limits += [int(kilobytes[1]) * 1024] if kilobytes else []
  path = pathlib.Path('/sys/fs/cgroup/memory.max')
  if path.is_file() and path.read_text().strip().isdigit():
    limits.append(int(path.read_text()))
  return min(limits, default=None)


def _free(folder: pathlib.Path) -> int | None:
  """Free bytes where a folder is, or would be made."""
  folder = folder.absolute()
  there = next(path for path in (folder, *folder.parents) if path.exists())
  return shutil.disk_usage(there).free if os.access(there, os.W_OK | os.X_OK) else None


def _weights(name: str) -> str:
  if not store.place(name).is_file():
    return ''
  try:
    if name in nets.HEADS:
      return weights.load_heads(name).label
    if name == nets.INCEPTION:
      return weights.load_inception().label
    return weights.load_features(name, [FEATURE_NETS[name].PLAN[0][0]]).label
  except WeightsError as error:
    return f'!{error}'
