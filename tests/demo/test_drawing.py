"""Inputs drawn by the user."""

import numpy as np
import pytest

from step_jax.data import swatches
from step_jax.errors import DataError
from step_jax.methods.step.page import drawing

GREY = (120, 120, 120)


def test_drawings_have_a_palette():
  sources = [swatches.render(f'val/{i}', 64)['A'] for i in range(8)]
  classes = {tuple(int(value) for value in color) for color in swatches.CLASS_COLORS}
  assert set(drawing.palette(sources)) == classes


def test_edges_are_black_on_white():
  edges = np.full((32, 32, 3), 255, np.uint8)
  edges[10:12] = 0
  edges[12, ::2] = 90
  assert drawing.palette([edges]) == [(255, 255, 255), (0, 0, 0)]


def test_photographs_have_no_palette():
  photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  assert drawing.palette([photo]) == [] and drawing.palette([]) == []


def test_a_drawing_gets_the_background_colour():
  drawn = np.zeros((128, 128, 4), np.uint8)
  drawn[:, :64] = (255, 0, 0, 255)
  source = drawing.finish(drawn, GREY, (32, 32))
  assert source.shape == (32, 32, 3) and source.dtype == np.uint8
  np.testing.assert_array_equal(source[:, 2], np.broadcast_to((255, 0, 0), (32, 3)))
  np.testing.assert_array_equal(source[:, -2], np.broadcast_to(GREY, (32, 3)))


@pytest.mark.parametrize(
  'drawn',
  [
    None,
    np.zeros((64, 64, 4), np.uint8),
    np.full((64, 64, 4), (*GREY, 255), np.uint8),
    np.full((64, 64, 3), GREY, np.uint8),
  ],
)
def test_an_empty_canvas_is_reported(drawn):
  with pytest.raises(DataError, match='the canvas is empty'):
    drawing.finish(drawn, GREY, (32, 32))


def test_a_canvas_keeps_the_shape_of_the_inputs():
  controls = pytest.importorskip('step_jax.demo.controls', exc_type=ImportError)
  for size, canvas in (((64, 64), (512, 512)), ((256, 512),) * 2, ((1024, 512), (512, 256))):
    begun = controls.on_canvas(np.full((*size, 3), GREY, np.uint8))
    assert begun['composite'].shape == (*canvas, 3) and not begun['layers']
