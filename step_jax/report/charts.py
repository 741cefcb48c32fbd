"""Training curves as SVG."""

from collections.abc import Mapping, Sequence
import io
import itertools

import matplotlib

matplotlib.use('svg')
from matplotlib import figure  # noqa: E402

# Maximum number of points of a curve; longer ones are subsampled.
_MAX_POINTS = 500


def curves(rows: Sequence[Mapping[str, float]]) -> str:
  """Small charts of metrics over the step, one per metric or family (`name/0`, `name/1`, …).

  Args:
    rows: `{'step': …, name: value}`; rows may lack metrics.

  Returns:
    SVG markup, one image per chart.
  """
  metrics = sorted({name for row in rows for name in row} - {'step'})
  families = itertools.groupby(metrics, _family)
  # A fixed hash salt and no date make the page of a run reproducible.
  with matplotlib.rc_context({'svg.hashsalt': 'step_jax', 'svg.fonttype': 'none'}):
    return '\n'.join(_chart(title, list(names), rows) for title, names in families)


def _chart(title: str, names: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
  fig = figure.Figure(figsize=(3.0, 1.9), layout='constrained')
  axes = fig.add_subplot()
  for name in names:
    points = [(row['step'], row[name]) for row in rows if name in row]
    points = points[:: max(1, len(points) // _MAX_POINTS)]
    axes.plot(*zip(*points, strict=True), linewidth=1.2, marker='.' if len(points) < 20 else '')
  axes.set_title(title, fontsize=9, parse_math=False)
  axes.tick_params(labelsize=7)
  axes.grid(alpha=0.3)
  buffer = io.StringIO()
  fig.savefig(buffer, format='svg', metadata={'Date': None})
  svg = buffer.getvalue()
  return svg[svg.index('<svg') :]


def _family(name: str) -> str:
  return name.partition('/')[0]
