"""Size of the search window of superpixels, and number of iterations."""

ITERATIONS = 10
# Scale of Lab values: a colour difference of 10 weighs as much as the distance of two seeds.
COLOUR_SCALE = 0.1
_SUPERPIXELS = 128


def window_step(height: int, width: int) -> tuple[int, int]:
  """Step of a regular grid of 128 superpixels over the whole image, in rows and in columns.

  A superpixel only has pixels within twice this step of its centre. As in the original, the image
  is a volume of depth 1. A side that is shorter than the step of a cubic grid has its own length as
  step, and the step of the longer sides is computed again without it.

  Args:
    height, width: size of the image, in pixels.

  Returns:
    Rows and columns, in pixels.
  """
  shape = (1, height, width)
  order = sorted(range(3), key=lambda axis: shape[axis])
  sides = [shape[axis] for axis in order]
  steps = [(height * width / _SUPERPIXELS) ** (1 / 3)] * 3
  for i in range(2):
    if sides[i] < steps[i]:
      steps[i] = float(sides[i])
      rest = 1.0
      for side in sides[i + 1 :]:
        rest *= side
      share = (rest / _SUPERPIXELS) ** (1 / (2 - i))
      steps[i + 1 :] = [share] * (2 - i)
  by_order = dict(zip(order, steps, strict=True))
  return round(by_order[1]), round(by_order[2])
