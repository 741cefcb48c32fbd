"""Parts of pages: images and galleries that look and behave alike on all of them."""

from collections.abc import Callable, Sequence
import functools
import itertools
import pathlib
import shutil

import gradio as gr
import numpy as np

from step_jax.data import pictures
from step_jax.errors import UserError

CSS = pathlib.Path(__file__).parent / 'page.css'
# So many translations are kept for download, of all who use the page.
_FILES = 256
# Every picture has buttons of the same names: a screen reader is told to which one they belong.
# What is in a tab comes into being when the tab is opened.
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
# System fonts: a page that is served offline can ask nobody for others.
THEME = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace'])


def picture_file(**options) -> gr.Image:
  """A picture of the user's, handed over as its file: `data.pictures` reads it or says why not."""
  picture = gr.Image(
    sources=['upload', 'clipboard'],
    type='filepath',
    format='png',
    buttons=[],
    elem_classes='whole',
    **options,
  )
  # Gradio would open it first, with less to say. (Its classes are not made to be derived from: it
  # writes a file beside the module that does.)
  picture.preprocess = lambda payload: payload.path if payload else None
  return picture


def with_messages(handler: Callable) -> Callable:
  """Shows on the page what a user can mend."""

  @functools.wraps(handler)
  def wrapped(*args):
    try:
      return handler(*args)
    except UserError as error:
      # Not as an error of Gradio's: that would take the place of the translation.
      gr.Warning(str(error), duration=15, title='This cannot be done')
      return gr.skip()

  return wrapped


def gallery(shown: Sequence[np.ndarray], label: str) -> gr.Gallery:
  """Images, uint8 `[H, W, 3]`, to choose from."""
  return gr.Gallery(
    list(shown), label=label, allow_preview=False, interactive=False, buttons=[],
    object_fit='cover', format='png', elem_classes='pictures',
  )  # fmt: skip


class Downloads:
  """Images that are offered for download, the newest ones.

  Args:
    folder: for their files.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._numbers = itertools.count()

  def add(self, image: np.ndarray) -> str:
    """Path of the file of an image, uint8 `[H, W, 3]`."""
    number = next(self._numbers)
    path = self._folder / str(number) / 'translation.png'
    path.parent.mkdir()
    pictures.write_png(path, image)
    shutil.rmtree(self._folder / str(number - _FILES), ignore_errors=True)
    return str(path)
