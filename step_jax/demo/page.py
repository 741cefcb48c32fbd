"""The demo page for runs of any method: input, style, options of the method, translations."""

import argparse
import dataclasses
import logging
import pathlib
from typing import Any, Self

import gradio as gr
import numpy as np

from step_jax import methods
from step_jax.data import contents, pipeline
from step_jax.demo import controls
from step_jax.errors import ConfigError, DataError
from step_jax.evaluate import scores
from step_jax.infer import gallery, reading
from step_jax.infer import options as options_lib

log = logging.getLogger(__name__)

# Number of validation examples to choose from, and maximum number of styles per sample.
_EXAMPLES, _MOST_DRAWN = 12, 16


@dataclasses.dataclass(frozen=True)
class Choice:
  """The choices that a user of the page has made.

  Attributes:
    source: input of `Run.translate`; None if there is none yet.
    code: current style; None if there is none yet, or the method needs none.
  """

  source: Any = None
  code: Any = None


class Page(controls.Frame):
  """The page of one run; methods may subclass it.

  Args:
    run: the run.
    workdir: work directory that the run was opened from.
    examples: examples of its data, by role.
    folder: folder for downloads.
  """

  first_choice = Choice()
  # Names of options without a control on the page.
  left_out: tuple[str, ...] = ()

  def __init__(
    self,
    run: methods.Run,
    workdir: str | pathlib.Path,
    examples: list[dict[str, np.ndarray]],
    folder: pathlib.Path,
  ):
    self._run = run
    self._workdir = workdir
    self._method = methods.METHODS[run.method]
    self._examples = examples
    given = options_lib.Given(run.method, 'translate', {})
    self._reader = reading.Reader(run, given, side_by_side=False)
    options = [o for o in self._method.options if o.name not in self.left_out]
    self._files = [o for o in options if o.of == 'encode' and o.read]
    self._values = [o for o in options if o.of in ('encode', 'translate', 'draw') and not o.read]
    super().__init__(folder)

  def _lay_out(self) -> None:
    gr.Markdown(
      f'# {self._method.title}\nRun `{self._workdir}`, stage {self._run.config.stage}, '
      f'step {self._run.step}.',
      elem_id='head',
    )
    self.choice = gr.State(self.first_choice)
    with gr.Row():
      with gr.Column(scale=4, min_width=300):
        gr.Markdown('## Input')
        kind = 'a label map' if self._method.source_role == 'labels' else 'an image'
        self.upload = controls.picture_file(
          label=f'Input: drop {kind}, or click to choose one', height=266, elem_id='input',
          alt_text='The input',
        )  # fmt: skip
        shown = [gallery.shown(example[self._method.source_role]) for example in self._examples]
        self.inputs = controls.gallery(shown, "Inputs of the run's data set")
      with gr.Column(scale=4, min_width=300):
        self._lay_out_style()
      self._lay_out_result()

  def _lay_out_style(self) -> None:
    gr.Markdown('## Style')
    with gr.Row():
      self.style = controls.picture_file(
        label='Style', height=176, min_width=120, elem_id='style', alt_text='The style'
      )
      self.files = [
        controls.picture_file(
          label=f'Its {option.name}', height=176, min_width=120, alt_text=option.help
        )
        for option in self._files
      ]
    self.use_style = gr.Button('Use this style')
    targets = [example['target'] for example in self._examples]
    self.styles = controls.gallery(targets, "Styles of the run's data set")
    self.values = [self._control(option) for option in self._values]
    self.translate = gr.Button('Translate', variant='primary')
    with gr.Row(elem_id='new'):
      self.count = gr.Number(
        4, label='How many', precision=0, minimum=1, maximum=_MOST_DRAWN, min_width=80
      )
      self.seed = controls.seed_number(0)
      self.sample = gr.Button('Draw new styles', min_width=120)
    if self._run.note:
      gr.Markdown(self._run.note)
    self.drawn = controls.gallery([], 'The input in new styles')

  @staticmethod
  def _control(option: methods.Option) -> Any:
    label, default = option.name.replace('-', ' '), option.default
    if option.choices:
      choices = [('default', ''), *((choice, choice) for choice in option.choices)]
      return gr.Dropdown(choices, value='', label=label, info=option.help)
    text = '' if default is None else str(default)
    return gr.Textbox(label=label, info=option.help, placeholder=text)

  def _outputs(self) -> list:
    return [self.choice, self.upload, self.style, self.result, self.download, self.drawn]

  def _wire(self, blocks: gr.Blocks) -> None:
    on = self._on
    on(blocks.load, self.begin)
    on(self.upload.upload, self.use_upload, self.upload, *self.values)
    on(self.inputs.select, self._use_input, *self.values)
    on(self.use_style.click, self.use_files, self.style, *self.files, *self.values)
    on(self.styles.select, self._use_style, *self.values)
    on(self.translate.click, self.render, *self.values)
    on(self.sample.click, self.draw, self.count, self.seed, *self.values)

  def begin(self, choice: Choice) -> dict:
    """Starts with the first example in its own style, if there are examples."""
    if not self._examples:
      return {self.choice: choice}
    update = self.use_example(choice, 0)
    if self._method.needs_code:
      update |= self.use_known(update[self.choice], 0)
    return update

  def _given(self, function: str, values: tuple[str, ...]) -> dict[str, Any]:
    """Values of the controls for the options of a function.

    Raises:
      ConfigError: a value is not valid for its option.
    """
    arguments = {}
    # When the page loads, no values are given: all options have their defaults.
    for option, text in zip(self._values, values, strict=False):
      if option.of == function and text:
        try:
          arguments[option.argument] = option.kind(text)
        except (ValueError, argparse.ArgumentTypeError) as error:
          raise ConfigError(f'{option.name}: {error}') from None
    return arguments

  @staticmethod
  def _with_style(choice: Choice, code: Any) -> Choice:
    return dataclasses.replace(choice, code=code)

  def render(self, choice: Choice, *values: str) -> dict:
    """Translates the input into the current style."""
    update = {self.choice: choice}
    missing = self._method.needs_code and choice.code is None
    if choice.source is None or missing:
      return update
    image = self._run.translate(choice.source, choice.code, **self._given('translate', values))
    path = self._downloads.add(image)
    return update | {self.result: path, self.download: path}

  def use_upload(self, choice: Choice, path: str, *values: str) -> dict:
    """Uses an uploaded file as the input."""
    source, picture = self._reader.source(pathlib.Path(path))
    update = self.render(dataclasses.replace(choice, source=source), *values)
    return update | {self.upload: picture}

  def use_example(self, choice: Choice, index: int, *values: str) -> dict:
    """Uses an example of the data as the input."""
    source = self._examples[index][self._method.source_role]
    update = self.render(dataclasses.replace(choice, source=source), *values)
    return update | {self.upload: gallery.shown(source)}

  def _use_input(self, choice: Choice, event: gr.SelectData, *values: str) -> dict:
    return self.use_example(choice, event.index, *values)

  def use_known(self, choice: Choice, index: int, *values: str) -> dict:
    """Uses the style of an example of the data."""
    example = self._examples[index]
    code = methods.encode(self._run, example, **self._given('encode', values))
    update = self.render(self._with_style(choice, code), *values)
    return update | {self.style: gallery.shown(example[self._method.code_roles[0]])}

  def _use_style(self, choice: Choice, event: gr.SelectData, *values: str) -> dict:
    return self.use_known(choice, event.index, *values)

  def use_files(self, choice: Choice, path: str | None, *rest: str | None) -> dict:
    """Uses the style of uploaded files: an image, and other files that its code needs."""
    own, values = rest[: len(self._files)], rest[len(self._files) :]
    if not path or not all(own):
      names = ', '.join(option.name for option in self._files)
      raise DataError(f'choose a style image{" and its " + names if names else ""} first')
    files = [(option, pathlib.Path(file)) for option, file in zip(self._files, own, strict=True)]
    code, _ = self._reader.style(pathlib.Path(path), files)
    return self.render(self._with_style(choice, code), *values)

  def draw(self, choice: Choice, count: float, seed: float, *values: str) -> dict:
    """Translates the input into new styles."""
    if choice.source is None:
      raise DataError('there is no input to show new styles on: choose one first')
    codes = self._run.draw(int(count), int(seed or 0), **self._given('draw', values))
    options = self._given('translate', values)
    images = [
      self._run.translate(choice.source, scores.at(codes, i), **options) for i in range(int(count))
    ]
    return {self.choice: choice, self.drawn: gr.Gallery(images, format='png', selected_index=None)}

  @classmethod
  def open(cls, workdir: str | pathlib.Path, which: str, folder: pathlib.Path) -> Self:
    """Opens the page of a run.

    Args:
      workdir: work directory of a trained run.
      which: `latest` or `best` checkpoint.
      folder: folder for downloads.

    Raises:
      RunError: no trained stage can translate yet.
    """
    run = methods.load(workdir, which)
    settings = run.config.data
    examples = []
    try:
      opened = contents.open_held_out(run.folder, settings)
      roles = methods.roles(run.config, opened)
      split = opened.split('val')
      examples = list(pipeline.eval_examples(split, roles, settings.eval_crop, _EXAMPLES))
    except DataError as error:
      log.warning('the images of the run are missing: %s', error)
    return cls(run, workdir, examples, folder)
