"""Superpixel style encoding (SPSE): image and label map to a code for every label, no network.

Each region is cut into up to 128 superpixels, which are ordered from the most interior one
outwards; their mean colours in this order are resampled to a code of 512 numbers.

`extract` computes all regions of a batch on the device, in float32; `host` is the reference, in
float64.
"""

from step_jax.methods.superstylenet.spse.device import Extraction, extract
from step_jax.methods.superstylenet.spse.outcome import Outcome
from step_jax.methods.superstylenet.spse.splines import CODE_SIZE, SUPERPIXELS, spline_table

__all__ = ['CODE_SIZE', 'Extraction', 'Outcome', 'SUPERPIXELS', 'extract', 'spline_table']
