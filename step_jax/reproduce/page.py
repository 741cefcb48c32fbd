"""A finished table as Markdown and as one HTML page."""

from collections.abc import Mapping, Sequence
import dataclasses
import statistics

import jinja2
import numpy as np
from PIL import Image, ImageDraw

from step_jax import files
from step_jax.data import pictures as pictures_lib
from step_jax.errors import RunError
from step_jax.infer import gallery

_ARROWS = {'higher': '↑', 'lower': '↓', '': ''}
_LABEL_WIDTH = 260
_LABEL_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class Line:
  """Results of a row.

  Attributes:
    title: title of the row.
    results: results of `evaluate.results.evaluate`, one per seed.
    seconds: training time, one per seed, including stages shared with other rows.
    pictures: images of the gallery, uint8 `[H, W, 3]`, with the same inputs and styles in each row.
  """

  title: str
  results: Sequence[Mapping]
  seconds: Sequence[float]
  pictures: Sequence[np.ndarray]


def columns(lines: Sequence[Line]) -> dict[str, Mapping]:
  """Scores of all rows: id -> description.

  Raises:
    RunError: two rows have different definitions of a score.
  """
  scores: dict[str, Mapping] = {}
  for line in lines:
    for results in line.results:
      for name, score in results['scores'].items():
        first = scores.setdefault(name, score)
        if first['hash'] != score['hash']:
          raise RunError(
            f'{line.title}: {name} has another definition than in the rows above: '
            'evaluate all rows on the same data with the same weights'
          )
  return scores


def cell(values: Sequence[float | None]) -> str:
  """Mean and, for two or more seeds, sample standard deviation."""
  values = [value for value in values if value is not None]
  if not values:
    return '–'
  mean = f'{statistics.fmean(values):.4g}'
  return f'{mean} ± {statistics.stdev(values):.2g}' if len(values) > 1 else mean


def body(lines: Sequence[Line]) -> list[list[str]]:
  """The table as text: a line of headings, then one line per row."""
  heads = columns(lines)
  titles = [f'{name} {_ARROWS[score["better"]]}'.strip() for name, score in heads.items()]
  rows = [['', *titles, 'minutes to train']]
  for line in lines:
    cells = [
      cell([results['scores'].get(name, {}).get('value') for results in line.results])
      for name in heads
    ]
    rows.append([line.title, *cells, cell([seconds / 60 for seconds in line.seconds])])
  return rows


def strip(lines: Sequence[Line], header: Sequence[tuple[str, Sequence[np.ndarray]]]) -> np.ndarray:
  """The gallery as one image with row titles, uint8 `[H, W, 3]`.

  Args:
    lines: rows of the table.
    header: titles and images of the rows above: inputs, styles.
  """
  rows = [*header, *((line.title, line.pictures) for line in lines)]
  return gallery.grid([[_label(title, pictures[0]), *pictures] for title, pictures in rows])


def _label(text: str, like: np.ndarray) -> np.ndarray:
  canvas = Image.new('RGB', (_LABEL_WIDTH, like.shape[0]), 'white')
  place = (_LABEL_MARGIN, like.shape[0] // 2)
  ImageDraw.Draw(canvas).text(place, text, fill='black', anchor='lm')
  return np.asarray(canvas)


def write(
  folder: files.Path,
  title: str,
  facts: Sequence[str],
  lines: Sequence[Line],
  header: Sequence[tuple[str, Sequence[np.ndarray]]],
) -> files.Path:
  """Writes `table.md`, `table.html` and `gallery.png`; returns the path of the page.

  Args:
    folder: folder for the files.
    title: title of the table.
    facts: notes on the numbers, one sentence each.
    lines: finished rows.
    header: see `strip`.
  """
  picture = strip(lines, header)
  head, *rest = body(lines)
  markdown = [f'# {title}', '', *facts, '']
  markdown += [_row(head), _row(['---'] + ['---:'] * (len(head) - 1)), *map(_row, rest)]
  markdown += ['', '![The same inputs and styles in every row](gallery.png)']
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('step_jax.reproduce', '.'), autoescape=True
  )
  html = environment.get_template('table.html.j2').render(
    title=title, facts=facts, head=head, rows=rest, scores=columns(lines),
    gallery=pictures_lib.data_url(picture),
  )  # fmt: skip
  pictures_lib.write_png(folder / 'gallery.png', picture)
  for name, text in {'table.md': '\n'.join(markdown) + '\n', 'table.html': html}.items():
    files.write_text(folder / name, text)
  return folder / 'table.html'


def _row(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'
