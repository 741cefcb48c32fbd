"""Training curves as SVG."""

from collections.abc import Mapping, Sequence
import io
import itertools

import matplotlib

matplotlib.use('svg')
from matplotlib import figure  # noqa: E402

# Curves with more points are thinned: a screen shows no more.
_MAX_POINTS = 500


def curves(rows: Sequence[Mapping[str, float]]) -> str:
  """Small charts over the step, one a metric, or one a family (`name/0`, `name/1`, …).

  Args:
    rows: `{'step': …, name: value}`; a metric need not be in every row.

  Returns:
    SVG markup.
  """
  metrics = sorted({name for row in rows for name in row} - {'step'})
  families = [list(family) for _, family in itertools.groupby(metrics, _family)]
  columns = 4
  lines = -(-len(families) // columns)
  fig = figure.Figure(figsize=(3.0 * columns, 1.9 * max(lines, 1)), layout='constrained')
  for i, family in enumerate(families):
    axes = fig.add_subplot(lines, columns, i + 1)
    for name in family:
      points = [(row['step'], row[name]) for row in rows if name in row]
      points = points[:: max(1, len(points) // _MAX_POINTS)]
      axes.plot(*zip(*points, strict=True), linewidth=1.2, marker='.' if len(points) < 20 else '')
    axes.set_title(_family(family[0]), fontsize=9, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
  buffer = io.StringIO()
  # Without a date or random ids the same run gives the same page.
  with matplotlib.rc_context({'svg.hashsalt': 'step_jax', 'svg.fonttype': 'none'}):
    fig.savefig(buffer, format='svg', metadata={'Date': None})
  svg = buffer.getvalue()
  return svg[svg.index('<svg') :]


def _family(name: str) -> str:
  return name.partition('/')[0]
