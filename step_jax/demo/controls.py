"""Building blocks of all pages: frame, images, galleries, canvas, downloads."""

import abc
from collections.abc import Callable, Sequence
import functools
import itertools
import pathlib
import shutil
from typing import Any

import gradio as gr
import numpy as np

from step_jax.data import pictures
from step_jax.errors import UserError

CSS = pathlib.Path(__file__).parent / 'page.css'
# Maximum side of canvases, px, and maximum seed.
_LARGEST_CANVAS, _LARGEST_SEED = 512, 2**31 - 1
# Number of translations that are kept for download, over all users of the page.
_FILES = 256
# All images have buttons with the same names. Labels on their groups let screen readers tell them
# apart. Observes the document, because the content of a tab is created when the tab is opened.
NAME_GROUPS = """() => {
  const name = () => {
    for (const block of document.querySelectorAll(':is(.whole, .pictures):not([role=group])')) {
      const label = block.querySelector('[data-testid="block-label"]');
      if (label) {
        block.setAttribute('role', 'group');
        block.setAttribute('aria-label', label.textContent.trim());
      }
    }
  };
  name();
  new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
}"""
# System fonts, because the page must work offline.
THEME = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])


def picture_file(**options) -> gr.Image:
  """An image upload, passed on as a file, which `data.pictures` reads or explains why not."""
  picture = gr.Image(
    sources=['upload', 'clipboard'],
    type='filepath',
    format='png',
    buttons=[],
    elem_classes='whole',
    **options,
  )
  # Otherwise Gradio would open the file first, with less helpful messages. (Subclassing its classes
  # does not work: it writes a file next to the module of the subclass.)
  picture.preprocess = lambda payload: payload.path if payload else None
  return picture


def with_messages(handler: Callable) -> Callable:
  """Shows errors that the user can fix on the page."""

  @functools.wraps(handler)
  def wrapped(*args):
    try:
      return handler(*args)
    except UserError as error:
      # A Gradio error would replace the translation.
      gr.Warning(str(error), duration=15, title='This cannot be done')
      return gr.skip()

  return wrapped


def gallery(shown: Sequence[np.ndarray], label: str) -> gr.Gallery:
  """A gallery of images, uint8 `[H, W, 3]`, to choose from."""
  return gr.Gallery(
    list(shown), label=label, allow_preview=False, interactive=False, buttons=[],
    object_fit='cover', format='png', elem_classes='pictures',
  )  # fmt: skip


def seed_number(value: int) -> gr.Number:
  """A control for the seed of sampled styles."""
  return gr.Number(
    value, label='Seed', precision=0, minimum=0, maximum=_LARGEST_SEED, min_width=100,
    info='the same seed gives the same styles',
  )  # fmt: skip


def canvas(paper: np.ndarray, colors: Sequence[Sequence[int]], **options) -> gr.ImageEditor:
  """A canvas to draw on.

  Args:
    paper: initial image, see `on_canvas`.
    colors: colours of the brush, RGB.
    options: options of Gradio.
  """
  begun = on_canvas(paper)
  height, width = begun['composite'].shape[:2]
  brush = gr.Brush(
    default_size=width // 16,
    colors=['#{:02x}{:02x}{:02x}'.format(*color) for color in colors],
    color_mode='fixed',
  )
  return gr.ImageEditor(
    begun, sources=[], transforms=[], layers=False, canvas_size=(width, height), fixed_canvas=True,
    format='png', buttons=[], elem_id='canvas', brush=brush, **options,
  )  # fmt: skip


def on_canvas(paper: np.ndarray) -> dict[str, Any]:
  """Value of a canvas for an image, uint8 `[H, W, 3]`, scaled by nearest neighbour."""
  scale = _LARGEST_CANVAS / max(paper.shape[:2])
  rows, columns = (
    np.arange(max(1, round(side * scale))) * side // max(1, round(side * scale))
    for side in paper.shape[:2]
  )
  large = paper[rows[:, None], columns]
  return {'background': large, 'layers': [], 'composite': large}


class Frame(abc.ABC):
  """Base class of pages; subclasses define the layout and the event handlers.

  Args:
    folder: folder for downloads.

  Attributes:
    blocks: the page.
    theme: theme of the page.
    css: file of its style sheet.
  """

  theme = THEME
  css = CSS

  def __init__(self, folder: pathlib.Path):
    self._downloads = Downloads(folder)
    with gr.Blocks(title='step_jax', analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
      self._lay_out()
      blocks.load(None, js=NAME_GROUPS)
      self._wire(blocks)
    self.blocks = blocks.queue(default_concurrency_limit=1)

  @abc.abstractmethod
  def _lay_out(self) -> None:
    """Creates the components of the page."""

  @abc.abstractmethod
  def _wire(self, blocks: gr.Blocks) -> None:
    """Connects events to handlers."""

  @abc.abstractmethod
  def _outputs(self) -> list:
    """Components that handlers may change, starting with the state."""

  def _lay_out_result(self) -> None:
    """Creates the column with the translation."""
    with gr.Column(scale=4, min_width=300, elem_id='result'):
      gr.Markdown('## Translation')
      self.result = gr.Image(
        label='Translation', interactive=False, height=386, format='png', buttons=['fullscreen'],
        elem_id='translation', elem_classes='whole', alt_text='The input in the current style',
      )  # fmt: skip
      self.download = gr.DownloadButton('Download as PNG', variant='primary')

  def _on(self, event: Callable, handler: Callable, *inputs, mode: str = 'once') -> None:
    """Registers a handler, which gets the state and inputs and returns changed components."""
    state, *_ = outputs = self._outputs()
    event(
      with_messages(handler), [state, *inputs], outputs, trigger_mode=mode,
      api_visibility='private', concurrency_id='run', show_progress_on=[self.result],
    )  # fmt: skip


class Downloads:
  """Files of the most recent translations, for download.

  Args:
    folder: folder for the files.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._numbers = itertools.count()

  def add(self, image: np.ndarray) -> str:
    """Writes an image, uint8 `[H, W, 3]`, and returns the path of its file."""
    number = next(self._numbers)
    path = self._folder / str(number) / 'translation.png'
    path.parent.mkdir()
    pictures.write_png(path, image)
    shutil.rmtree(self._folder / str(number - _FILES), ignore_errors=True)
    return str(path)
