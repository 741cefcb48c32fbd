"""The demo page: layout and event handlers."""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import gradio as gr
import numpy as np

from step_jax.demo import controls
from step_jax.errors import DataError
from step_jax.methods.step.page import choice as choice_lib
from step_jax.methods.step.page import studio as studio_lib
from step_jax.methods.step.page.choice import FIRST, SECOND, Choice
from step_jax.methods.step.page.studio import Studio

log = logging.getLogger(__name__)

_IN_GALLERY = 24
_NEW_STYLES = 6


class Page(controls.Frame):
  """The page of one run.

  Args:
    studio: the run.
    folder: folder for downloads.
  """

  def __init__(self, studio: Studio, folder: pathlib.Path):
    self._studio = studio
    super().__init__(folder)

  # Layout.

  def _lay_out(self) -> None:
    config = self._studio.translator.config
    gr.Markdown(
      f'# One input, many outputs\nRun `{self._studio.workdir}`, stage {config.stage}, '
      f'step {self._studio.translator.step}.',
      elem_id='head',
    )
    if self._studio.pictures.problem:
      gr.Markdown(f'**{self._studio.pictures.problem}**')
    self.choice = gr.State(self._first_choice())
    with gr.Row():
      with gr.Column(scale=4, min_width=300):
        self._lay_out_input()
      with gr.Column(scale=5, min_width=300):
        self._lay_out_style()
      self._lay_out_result()

  def _lay_out_input(self) -> None:
    gr.Markdown('## Input')
    with gr.Tabs():
      with gr.Tab('Picture'):
        self.upload = controls.picture_file(
          label='Input: drop an image, or click to choose one',
          height=266,
          elem_id='input',
          alt_text='The input',
        )
        self.inputs = controls.gallery(self._studio.pictures.inputs, "Inputs of the run's data set")
      # Label maps and edges can be drawn, photographs cannot.
      if self._studio.palette:
        with gr.Tab('Draw'):
          self._lay_out_canvas()

  def _lay_out_canvas(self) -> None:
    ground, *inks = self._studio.palette
    paper = np.full((*self._studio.input_size, 3), ground, np.uint8)
    self.canvas = controls.canvas(paper, inks or [(0, 0, 0)], label='Canvas')
    self.use_canvas = gr.Button('Translate the drawing')

  def _lay_out_style(self) -> None:
    gr.Markdown('## Style')
    with gr.Row():
      self.ends = {
        which: controls.picture_file(
          label=which,
          height=176,
          min_width=120,
          elem_id=which.split()[0].lower(),
          alt_text=f'Image of the {which.lower()}',
          placeholder='Drop an image',
        )
        for which in (FIRST, SECOND)
      }
    self.blend = gr.Slider(
      0, 1, 0, step=0.01, label='From the first style (0) to the second (1)', buttons=[]
    )
    self.which = gr.Radio([FIRST, SECOND], value=FIRST, label='A style chosen below becomes the')
    with gr.Tabs():
      with gr.Tab('Pictures'):
        shown = self._studio.pictures.thumbnails[:_IN_GALLERY]
        self.styles = controls.gallery(shown, "Styles of the run's data set")
      with gr.Tab('Map'):
        self._lay_out_map()
      with gr.Tab('New'):
        with gr.Row(elem_id='new'):
          self.seed = controls.seed_number(1)
          self.draw = gr.Button('Draw new styles', min_width=120)
        if self._studio.translator.note:
          gr.Markdown(self._studio.translator.note)
        self.drawn = controls.gallery([], 'The input in new styles')
      with gr.Tab('Code'):
        sliders = self._studio.sliders
        values = sliders.values(self._first_choice().code)
        low, high = (limits.tolist() for limits in (sliders.low, sliders.high))
        ranges = zip(low, high, values, strict=True)
        self.sliders = [
          gr.Slider(low, high, value, step=0.01, label=f'Dimension {i}', buttons=[])
          for i, (low, high, value) in enumerate(ranges, start=1)
        ]

  def _lay_out_map(self) -> None:
    self.map = None
    if self._studio.style_map is None:
      gr.Markdown(
        'The run has no map of styles yet. Train the mapper to store them: '
        f'`step-jax train mapper --workdir {self._studio.workdir}`'
        if self._studio.z_dim
        else 'The run has no styles: the length of its codes (`model.z_dim`) is 0'
      )
      return
    share = self._studio.style_map.style_map.share
    self.map = gr.Image(
      self._studio.style_map.image, label='Map of styles: click one to use it', interactive=False,
      format='png', buttons=[], elem_id='map', elem_classes=['whole', 'chart'],
      alt_text='Styles along their first two principal components',
    )  # fmt: skip
    self.listed = gr.Dropdown(
      list(zip(self._studio.pictures.names, range(len(self._studio.pictures.names)), strict=True)),
      value=None, label='The same styles as a list', filterable=True,
      info=f'{len(self._studio.pictures.names)} styles; the map shows {share:.0%} of their '
      'variance; the ring marks the current style',
    )  # fmt: skip

  # Event handlers.

  def _outputs(self) -> list:
    return [
      self.choice, self.upload, *self.ends.values(), self.blend, *self.sliders, self.result,
      self.download, self.drawn, self.seed, *([self.map] if self.map else []),
    ]  # fmt: skip

  def _wire(self, blocks: gr.Blocks) -> None:
    on = self._on
    on(blocks.load, self._begin)
    on(self.upload.upload, self._use_upload, self.upload)
    on(self.inputs.select, self._use_input)
    if self._studio.palette:
      on(self.use_canvas.click, self._use_drawing, self.canvas)
    for which, end in self.ends.items():
      on(end.upload, functools.partial(self._use_style_file, which), end)
    on(self.styles.select, self._use_style, self.which)
    on(self.drawn.select, self._use_drawn, self.which)
    on(self.draw.click, self._draw_styles, self.seed)
    if self.map:
      on(self.map.select, self._use_map, self.which)
      on(self.listed.input, self._use_listed, self.which, self.listed)
    # While a slider moves, only its last position matters; positions in between may be skipped.
    on(self.blend.input, self._blend, self.blend, mode='always_last')
    for slider in self.sliders:
      on(slider.input, self._move, *self.sliders, mode='always_last')

  def _first_choice(self) -> Choice:
    inputs = self._studio.pictures.inputs
    return Choice.of(inputs[0] if inputs else None, *self._studio.first_codes())

  def _begin(self, choice: Choice) -> dict:
    shown = self._studio.pictures.thumbnails
    styles = [shown[i] for i in self._studio.first_styles] if shown else [None, None]
    ends = dict(zip(self.ends.values(), styles, strict=True))
    source = {} if choice.source is None else {self.upload: choice.source}
    return {**self._render(choice), **source, **ends}

  def _render(self, choice: Choice, move_sliders: bool = True) -> dict[Any, Any]:
    """Updates the translation and everything that shows the current style."""
    update = {self.choice: choice}
    if move_sliders:
      values = self._studio.sliders.values(choice.code)
      update |= dict(zip(self.sliders, values, strict=True))
    if self.map:
      update[self.map] = self._studio.style_map.marked(choice.code)
    if choice.source is not None:
      self._tell_of_compiling('translate', choice.source)
      path = self._downloads.add(self._studio.translate(choice.source, choice.code))
      update |= {self.result: path, self.download: path}
    return update

  def _tell_of_compiling(self, what: str, image: np.ndarray) -> None:
    if self._studio.is_new(what, image):
      height, width = image.shape[:2]
      gr.Info(f'Compiling for images of {width} x {height} px. This happens once per size.')

  def _use_source(self, choice: Choice, source: np.ndarray) -> dict:
    return self._render(dataclasses.replace(choice, source=source))

  def _use_upload(self, choice: Choice, path: str) -> dict:
    return self._use_source(choice, self._studio.read(path))

  def _use_input(self, choice: Choice, event: gr.SelectData) -> dict:
    source = self._studio.pictures.inputs[event.index]
    return {**self._use_source(choice, source), self.upload: source}

  def _use_drawing(self, choice: Choice, drawn: dict | None) -> dict:
    composite = drawn['composite'] if drawn else None
    return self._use_source(choice, self._studio.draw(composite))

  def _use_code(self, choice: Choice, which: str, code: np.ndarray) -> dict:
    update = self._render(choice.with_style(which, code))
    return {**update, self.blend: choice_lib.blend_of(which)}

  def _use_style_file(self, which: str, choice: Choice, path: str) -> dict:
    picture = self._studio.read(path)
    self._tell_of_compiling('encode', picture)
    return self._use_code(choice, which, self._studio.encode(picture))

  def _use_known(self, choice: Choice, which: str, index: int) -> dict:
    update = self._use_code(choice, which, self._studio.pictures.codes[index])
    thumbnails = self._studio.pictures.thumbnails
    return {**update, self.ends[which]: thumbnails[index] if thumbnails else None}

  def _use_style(self, choice: Choice, which: str, event: gr.SelectData) -> dict:
    return self._use_known(choice, which, event.index)

  def _use_map(self, choice: Choice, which: str, event: gr.SelectData) -> dict:
    height, width = self._studio.style_map.image.shape[:2]
    x, y = event.index
    return self._use_known(choice, which, self._studio.style_map.at(x / width, y / height))

  def _use_listed(self, choice: Choice, which: str, index: int) -> dict:
    return self._use_known(choice, which, index)

  def _draw_styles(self, choice: Choice, seed: int | None) -> dict:
    if choice.source is None:
      raise DataError('there is no input to show new styles on: choose or draw one first')
    seed = int(seed or 0)
    drawn = self._studio.new_styles(_NEW_STYLES, seed)
    shown = self._studio.in_styles(choice.source, drawn)
    choice = dataclasses.replace(choice, drawn=drawn, drawn_pictures=shown)
    return {
      self.choice: choice,
      self.drawn: gr.Gallery(shown, selected_index=None),
      self.seed: seed + 1,
    }

  def _use_drawn(self, choice: Choice, which: str, event: gr.SelectData) -> dict:
    update = self._use_code(choice, which, choice.drawn[event.index])
    return {**update, self.ends[which]: choice.drawn_pictures[event.index]}

  def _blend(self, choice: Choice, t: float) -> dict:
    return self._render(choice.blended(t))

  def _move(self, choice: Choice, *values: float) -> dict:
    code = self._studio.sliders.moved(choice.code, list(values))
    return self._render(dataclasses.replace(choice, code=code), move_sliders=False)


def open_page(workdir: str | pathlib.Path, which: str, folder: pathlib.Path) -> Page:
  """Opens the page of a run and compiles it for the size of its images.

  Args:
    workdir: work directory of a trained run.
    which: `latest` or `best` checkpoint.
    folder: folder for downloads.

  Raises:
    RunError: no trained stage can translate yet.
  """
  studio = studio_lib.open_run(workdir, which)
  log.info('compiling for images of %d x %d px', *reversed(studio.input_size))
  studio.warm_up()
  return Page(studio, folder)
