"""Every number that this project reports, and exactly what it is.

A protocol has an id, which says what was measured, and a definition, which says everything else that
decides the number. Its hash stands in every `results.json`; two numbers may stand in one column only
if their hashes agree. `docs/protocols.md` is made from this file.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json

GROUPS = ('reconstruction', 'style', 'diversity', 'realism')

_UINT8 = 'uint8 RGB 0..255, outputs rounded to nearest (half to even) and clipped as when saved'
_OWN = (
  'translation of each source in the style of its own target (z = E(target)), against the target'
)
_LPIPS_SIZE = 'both pictures resized to 256x256 by Pillow bicubic, rounded to uint8'


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a number is made.

  Attributes:
    id: names it, e.g. `lpips-alex-0.1/256`.
    title: one line for people.
    group: one of `GROUPS`.
    better: `higher`, `lower`, or empty where neither is.
    definition: what decides the number: pictures compared, range, resizing, weights, counts.
  """

  id: str
  title: str
  group: str
  better: str
  definition: Mapping[str, str]

  @property
  def hash(self) -> str:
    """First 12 hex digits of the SHA-256 of id and definition."""
    text = json.dumps([self.id, dict(self.definition)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def reconstruction(id_: str, title: str, better: str, **definition: str) -> Protocol:
  """A distance of rebuilt pictures from the true ones."""
  return Protocol(id_, title, 'reconstruction', better, {'pictures': _OWN, **definition})


def psnr() -> Protocol:
  """PSNR."""
  return reconstruction(
    'psnr/uint8',
    'peak signal-to-noise ratio, dB, mean over pictures',
    'higher',
    range=_UINT8,
    formula='10 log10(255^2 / mean squared difference over pixels and channels)',
    size='native, no resizing',
  )
