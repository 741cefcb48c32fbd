"""`docs/weights.md` lists the layouts that `weights convert` recognises, and their tensor names."""

import pathlib
import re

from step_jax.weights import layouts

PAGE = pathlib.Path(__file__).parents[2] / 'docs/weights.md'


def rows():
  for line in PAGE.read_text('utf-8').splitlines():
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if line.startswith('|') and not line.startswith(('| layout', '| ---')):
      yield dict(
        zip(('title', 'holds', 'names', 'kernels', 'input', 'example'), cells, strict=True)
      )


def test_the_page_has_every_layout():
  titles = {re.sub(r'^(LPIPS heads).*', r'\1', layout.title) for layout in layouts._layouts()}
  assert {row['title'] for row in rows()} == titles


def test_examples_are_names_of_their_layouts():
  for row in rows():
    fitting = [x for x in layouts._layouts() if x.title.startswith(row['title'])]
    named = [layout for layout in fitting if row['example'].strip('`') in layout.paths]
    assert named
    if row['title'] != 'LPIPS heads':
      assert {layout.axes for layout in named} == {row['kernels']}


def test_indices_are_those_of_torchvision():
  text = PAGE.read_text('utf-8').replace('\n', ' ')
  for title in ('VGG16', 'VGG19', 'AlexNet', 'SqueezeNet 1.1'):
    layout = next(x for x in layouts._layouts() if x.title == f'torchvision {title}')
    indices = dict.fromkeys(name.split('.')[1] for name in layout.paths)
    assert f'{", ".join(indices)} for {title}' in text, title
