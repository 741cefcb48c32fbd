"""Superpixel style encoding (SPSE): image and label map to one code per label, without a network.

Each region is split into up to 128 superpixels, ordered from the most interior one outwards. Their
mean colours in this order are resampled to a code of 512 numbers.

`extract` computes all regions of a batch on the device in float32. `host` is the float64 reference.
"""

from step_jax.methods.superstylenet.spse.device import Extraction, extract
from step_jax.methods.superstylenet.spse.outcome import Outcome
from step_jax.methods.superstylenet.spse.splines import CODE_SIZE, SUPERPIXELS, spline_table

__all__ = ['CODE_SIZE', 'Extraction', 'Outcome', 'SUPERPIXELS', 'extract', 'spline_table']
