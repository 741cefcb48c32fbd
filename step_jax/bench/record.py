"""Formats benchmark records as text and as JSON."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from step_jax.bench.settings import Settings, benches
from step_jax.bench.timing import Spread


def plain(value: Any) -> Any:
  """Converts a record to JSON types."""
  if dataclasses.is_dataclass(value):
    return plain(dataclasses.asdict(value))
  if isinstance(value, Mapping):
    return {name: plain(part) for name, part in value.items()}
  if isinstance(value, list | tuple):
    return [plain(part) for part in value]
  return value


def write(path: pathlib.Path, record: Mapping) -> None:
  """Writes a record as JSON, atomically."""
  part = path.with_name(f'.{path.name}.part')
  part.write_text(json.dumps(plain(record), indent=2) + '\n')
  part.replace(path)


def text(record: Mapping) -> str:
  """Formats a record for the terminal."""
  lines = [*_head(record)]
  for case in record.get('cases', ()):
    lines += ['', *_case(case)]
  if 'found' in record:
    lines += ['', f'{record["bench"]}: median (quartiles)']
    lines += _rows([(name.replace('_', ' '), _value(v)) for name, v in record['found'].items()])
  if 'memory' in record:
    lines += ['', 'peak memory, each in a separate process']
    lines += _rows([(name, _si(peak) + 'B') for name, peak in record['memory'].items()])
  if 'program' in record:
    lines += ['', 'compiled step', *_rows(_program(record['program']))]
  return '\n'.join(lines)


def _head(record: Mapping) -> list[str]:
  settings: Settings = record['settings']
  machine = record['machine']
  used = {name: getattr(settings, name) for name in benches()[record['bench']].fields}
  versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
  allowed = 'may use TF32 if the device has it' if settings.tf32 else 'use full precision'
  return [
    f'{record["bench"]}: '
    + ', '.join(f'{name} {value}' for name, value in used.items())
    + f'; {settings.repeats} rounds',
    f'on {machine["kind"]} ({machine["device"]}); {machine["processor"]}, {machine["cores"]} '
    f'cores, load {machine["load"]} at the start',
    f'python {machine["python"]}, {versions}',
    f'float32 products {allowed}; style distances and IMLE always use full precision',
  ]


def _case(case: Mapping) -> list[str]:
  ceilings = case['ceilings']
  matmul = f'{_si(ceilings["matmul_flops_per_second"])}FLOP/s'
  rows = [
    ('seconds per call', _value(case['seconds'])),
    (f'{case["unit"]} per second', f'{case["items_per_second"]:.4g}'),
    *_program(case['program']),
    (f'ceiling, {ceilings["matmul_dtype"]} matmul', matmul),
    ('ceiling, copy', f'{_si(ceilings["copy_bytes_per_second"])}B/s'),
    ('share of matmul ceiling', _percent(case['flops_share'])),
    ('share of copy ceiling', _percent(case['bytes_share'])),
  ]
  lines = [f'{case["name"]}: {case["items"]} {case["unit"]} per call', *_rows(rows)]
  if 'peer' not in case:
    return lines
  peer = case['peer']
  tried = [(trial.name, trial.failure or f'{trial.seconds:.4g} s') for trial in peer['variants']]
  pairs = ' '.join(f'{ratio:.3f}' for ratio in peer['ratios'])
  return [
    *lines,
    'variants of the peer, short measurements',
    *_rows(tried),
    f'in alternation with the fastest variant, {peer["name"]}',
    *_rows(
      [
        ('its seconds per call', _value(peer['seconds'])),
        ('our time / its time', _value(peer['ratio'])),
        ('pair by pair', pairs),
      ]
    ),
  ]


def _program(program) -> list[tuple[str, str]]:
  return [
    (f'FLOPs ({program.counted})', _si(program.flops)),
    ('bytes accessed', _si(program.bytes_accessed)),
    ('peak bytes', _si(program.peak_bytes)),
    *((f'bytes between devices, {name}', _si(b)) for name, b in program.collectives.items()),
  ]


def _rows(rows) -> list[str]:
  return [f'  {name:<48} {value}' for name, value in rows]


def _value(value: Spread | float) -> str:
  if isinstance(value, Spread):
    return f'{value.median:.4g} ({value.lower:.4g} to {value.upper:.4g})'
  return f'{value:.4g}'


def _percent(part: float | None) -> str:
  return 'unknown' if part is None else f'{100 * part:.1f} %'


def _si(value: float | None) -> str:
  """Formats a number with a decimal prefix."""
  if value is None:
    return 'unknown'
  for prefix in ('', 'k', 'M', 'G', 'T', 'P'):
    if abs(value) < 1000 or prefix == 'P':
      return f'{value:.4g} {prefix}'
    value /= 1000
