"""A finished table as Markdown, as one HTML page, and as JSON."""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import math
import statistics

import jinja2
import numpy as np
from PIL import Image, ImageDraw

from step_jax import files
from step_jax.data import pictures as pictures_lib
from step_jax.errors import RunError
from step_jax.evaluate import intervals
from step_jax.infer import gallery

_ARROWS = {'higher': '↑', 'lower': '↓', '': ''}
_STEPS = (
  'Differences are from the row above, of the same seeds and images, with half of the 95 % '
  "interval (Student's t over seeds; over images for one seed); * marks those whose intervals over "
  'seeds and over images exclude zero.'
)
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


@dataclasses.dataclass(frozen=True)
class Difference:
  """Score of a row minus that of another row, of the same seeds and images.

  Attributes:
    seeds: differences of the scores of each seed.
    over_seeds: 95 % Student's t interval over seeds, for other seeds and the same images; NaN for
      one seed.
    over_images: 95 % bootstrap interval over images of the mean over seeds, for other images and
      these trainings; NaN if images have no values.
  """

  seeds: tuple[float, ...]
  over_seeds: tuple[float, float]
  over_images: tuple[float, float]

  @property
  def mean(self) -> float:
    return statistics.fmean(self.seeds)

  @property
  def is_clear(self) -> bool:
    """Whether all intervals that are known, at least one, exclude zero."""
    known = [ends for ends in (self.over_seeds, self.over_images) if not math.isnan(ends[0])]
    return bool(known) and all(low > 0 or high < 0 for low, high in known)


def differences(line: Line, other: Line) -> dict[str, Difference]:
  """Score -> difference of `line` from `other`, for scores that both have for every seed.

  Raises:
    RunError: the rows were scored on different images.
  """
  if [results.get('pictures') for results in line.results] != [
    results.get('pictures') for results in other.results
  ]:
    raise RunError(
      f'{line.title} and {other.title}: their scores are of different images: evaluate all rows on '
      'the same data'
    )
  by_score = {}
  both = [[results['scores'] for results in each.results] for each in (line, other)]
  for name in both[0][0]:
    pairs = [[scores.get(name, {}) for scores in seeds] for seeds in zip(*both, strict=True)]
    if any(score.get('value') is None for pair in pairs for score in pair):
      continue
    seeds = tuple(a['value'] - b['value'] for a, b in pairs)
    over_images = (math.nan, math.nan)
    if all(score.get('values') for pair in pairs for score in pair):
      values = np.array([[a['values'], b['values']] for a, b in pairs], float)
      over_images = intervals.bootstrap((values[:, 0] - values[:, 1]).T)
    by_score[name] = Difference(seeds, intervals.student(seeds), over_images)
  return by_score


def steps(lines: Sequence[Line]) -> list[list[str]]:
  """Differences of rows from the row above as text: headings, then a line for each but the first.

  Cells have the difference, and half of its interval over seeds (for one seed: over images); clear
  ones are marked.
  """
  names = [name for name, score in columns(lines).items() if score['better']]
  rows = [['', *names]]
  for above, line in itertools.pairwise(lines):
    by_score = differences(line, above)
    rows.append([f'{line.title} − {above.title}', *(_step(by_score.get(name)) for name in names)])
  return rows


def _step(difference: Difference | None) -> str:
  if difference is None:
    return '–'
  one_seed = math.isnan(difference.over_seeds[0])
  low, high = difference.over_images if one_seed else difference.over_seeds
  mark = ' *' if difference.is_clear else ''
  return f'{difference.mean:+.3g} ± {(high - low) / 2:.2g}{mark}'.replace(' ± nan', '')


def record(title: str, facts: Sequence[str], lines: Sequence[Line]) -> dict:
  """The table for JSON: scores of each seed, and the differences of all pairs of rows."""
  kept = ('hash', 'better', 'value', 'interval')
  trained = ('stage', 'step', 'features', 'versions', 'data')
  rows = [
    {
      'row': line.title,
      'seeds': [
        {
          'minutes': round(seconds / 60, 2),
          **{field: results[field] for field in trained if field in results},
          'scores': {
            name: {field: score[field] for field in kept if field in score}
            for name, score in results['scores'].items()
          },
        }
        for seconds, results in zip(line.seconds, line.results, strict=True)
      ],
    }
    for line in lines
  ]
  pairs = [
    {
      'row': line.title,
      'minus': other.title,
      'scores': {
        name: {
          'mean': difference.mean,
          **{field: _finite(ends) for field, ends in dataclasses.asdict(difference).items()},
          'is_clear': difference.is_clear,
        }
        for name, difference in differences(line, other).items()
      },
    }
    for i, line in enumerate(lines)
    for other in lines[:i]
  ]
  return {'title': title, 'facts': list(facts), 'rows': rows, 'differences': pairs}


def _finite(ends: Sequence[float]) -> list[float] | None:
  return list(ends) if all(map(math.isfinite, ends)) else None


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
  """Writes `table.md`, `table.html`, `table.json` and `gallery.png`; returns the path of the page.

  Args:
    folder: folder for the files.
    title: title of the table.
    facts: notes on the numbers, one sentence each.
    lines: finished rows.
    header: see `strip`.
  """
  picture = strip(lines, header)
  tables = [body(lines)]
  if len(lines) > 1:
    tables.append(steps(lines))
    facts = [*facts, _STEPS]
  markdown = [f'# {title}', '', *facts, '']
  for head, *rest in tables:
    markdown += [_row(head), _row(['---'] + ['---:'] * (len(head) - 1)), *map(_row, rest), '']
  markdown += ['![The same inputs and styles in every row](gallery.png)']
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('step_jax.reproduce', '.'), autoescape=True
  )
  html = environment.get_template('table.html.j2').render(
    title=title, facts=facts, tables=tables, scores=columns(lines),
    gallery=pictures_lib.data_url(picture),
  )  # fmt: skip
  pictures_lib.write_png(folder / 'gallery.png', picture)
  as_json = json.dumps(record(title, facts, lines), indent=1, allow_nan=False, ensure_ascii=False)
  texts = {'table.md': '\n'.join(markdown), 'table.html': html, 'table.json': as_json}
  for name, text in texts.items():
    files.write_text(folder / name, text + ('' if name == 'table.html' else '\n'))
  return folder / 'table.html'


def _row(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'
