"""The demo page: paint a label map, click a region, and choose its code."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import NamedTuple

import gradio as gr
import numpy as np

from step_jax import files, methods
from step_jax.data import pictures
from step_jax.demo import controls
from step_jax.demo import page as page_lib
from step_jax.errors import DataError
from step_jax.methods.superstylenet import inputs
from step_jax.methods.superstylenet.codes import RegionCodes
from step_jax.methods.superstylenet.page import painting

OWN, OTHER, MEAN = 'its own', "another image's", 'the mean of the training images'


class Edit(NamedTuple):
  """A code to blend the code of a region with.

  Attributes:
    kind: `OTHER` or `MEAN`.
    codes: codes `[L, 512]`; only that of the region is used.
    share: weight of that code, in [0, 1].
  """

  kind: str
  codes: RegionCodes
  share: float


@dataclasses.dataclass(frozen=True)
class Choice(page_lib.Choice):
  """The choices that a user of the page has made; `code` is the style with all edits.

  Attributes:
    own: codes of the style; None if there is none yet.
    region: label of the selected region; None if none is selected.
    edits: label -> its edit.
  """

  own: RegionCodes | None = None
  region: int | None = None
  edits: Mapping[int, Edit] = dataclasses.field(default_factory=dict)

  def edited(self, edits: Mapping[int, Edit], mean: RegionCodes) -> 'Choice':
    """Applies other edits to the codes of the style, or to the mean codes if there is none yet.

    Raises:
      DataError: the other image has no code for the region.
    """
    code = mean if self.own is None else self.own
    for label, edit in edits.items():
      if not edit.codes.valid[label]:
        raise DataError(f'this image has no code for class {label}: choose an image that shows it')
      code = code.interpolate(edit.codes, edit.share, [label])
    return dataclasses.replace(self, code=code, edits=edits)


class Page(page_lib.Page):
  """The page of all methods, extended by a canvas and the codes of single regions."""

  first_choice = Choice()
  # Regions are selected by clicks.
  left_out = ('region',)

  def _lay_out(self) -> None:
    super()._lay_out()
    num_labels = self._run.num_labels
    with gr.Row():
      with gr.Column(scale=4, min_width=300):
        gr.Markdown('## Paint')
        blank = painting.regions(np.zeros(self._size, np.uint8), None)
        colors = painting.colors(num_labels).tolist()
        self.canvas = controls.canvas(blank, colors, label='Label map: one colour per class')
        self.use_canvas = gr.Button('Translate the painting')
      with gr.Column(scale=4, min_width=300):
        gr.Markdown('## Codes of regions')
        self.map = gr.Image(
          label='Regions: click one to choose its code', interactive=False, format='png',
          buttons=[], elem_id='regions', elem_classes=['whole', 'chart'], height=266,
          alt_text='The label map; regions that are not selected are faded',
        )  # fmt: skip
        self.region = gr.Dropdown(
          [(f'class {label}', label) for label in range(num_labels)], value=None,
          label='Selected region',
        )  # fmt: skip
        self.kind = gr.Radio([OWN, OTHER, MEAN], value=OWN, label='Code of the region')
        self.share = gr.Slider(
          0, 1, 1, step=0.01, label='From its own code (0) to the chosen code (1)', buttons=[]
        )
        targets = [example['target'] for example in self._examples]
        self.others = controls.gallery(targets, "Other image, from the run's data set")
      with gr.Column(scale=4, min_width=300):
        gr.Markdown('## Superpixels')
        self.superpixels = gr.Image(
          label='Superpixels of the style; codes are their mean colours', interactive=False,
          format='png', buttons=['fullscreen'], elem_classes='whole', height=386,
          alt_text='The style image with the outlines of its superpixels',
        )  # fmt: skip

  def _outputs(self) -> list:
    own = [self.canvas, self.map, self.region, self.kind, self.share, self.superpixels]
    return super()._outputs() + own

  def _wire(self, blocks: gr.Blocks) -> None:
    super()._wire(blocks)
    self._on(self.use_canvas.click, self.use_painting, self.canvas, *self.values)
    self._on(self.map.select, self._click, *self.values)
    self._on(self.region.input, self.choose, self.region, *self.values)
    self._on(self.kind.input, self.use_kind, self.kind, *self.values)
    self._on(self.others.select, self._use_other, *self.values)
    # While the slider moves, only its last position matters.
    self._on(self.share.input, self.blend, self.share, *self.values, mode='always_last')

  def render(self, choice: Choice, *values: str) -> dict:
    """Shows the input in the current style, and the map of its regions."""
    update = super().render(choice, *values)
    if choice.source is not None:
      update[self.map] = painting.regions(choice.source, choice.region)
    return update

  def use_upload(self, choice: Choice, path: str, *values: str) -> dict:
    """Uses an uploaded label map as the input, and shows it on the canvas."""
    return self._on_canvas(super().use_upload(choice, path, *values))

  def use_example(self, choice: Choice, index: int, *values: str) -> dict:
    """Uses a label map of the data as the input, and shows it on the canvas."""
    return self._on_canvas(super().use_example(choice, index, *values))

  def _on_canvas(self, update: dict) -> dict:
    shown = painting.regions(update[self.choice].source, None)
    return update | {self.canvas: controls.on_canvas(shown)}

  def use_painting(self, choice: Choice, painted: dict | None, *values: str) -> dict:
    """Uses the painting on the canvas as the input."""
    size = self._size if choice.source is None else choice.source.shape
    composite = painted['composite'] if painted else None
    source = painting.read(composite, self._run.num_labels, size)
    update = self.render(dataclasses.replace(choice, source=source), *values)
    return update | {self.upload: painting.regions(source, None)}

  def _with_style(self, choice: Choice, code: RegionCodes) -> Choice:
    """Sets the codes of the style and keeps the edits."""
    choice = dataclasses.replace(choice, own=code)
    return choice.edited(choice.edits, self._run.mean)

  def use_known(self, choice: Choice, index: int, *values: str) -> dict:
    """Uses the style of an example of the data."""
    update = super().use_known(choice, index, *values)
    return update | {self.superpixels: self._superpixels_of(index)}

  def use_files(self, choice: Choice, path: str | None, *rest: str | None) -> dict:
    """Uses the style of an uploaded image and its label map."""
    update = super().use_files(choice, path, *rest)
    image = pictures.fit(pictures.read_picture(path), self._run.config.data.resize)
    labels = inputs.read_labels(self._run, files.path(rest[0]), image)
    return update | {self.superpixels: self._outlined(image, labels)}

  def choose(self, choice: Choice, label: int, *values: str) -> dict:
    """Selects the region of a label and shows its code."""
    edit = choice.edits.get(label)
    update = self.render(dataclasses.replace(choice, region=label), *values)
    kind, share = (edit.kind, edit.share) if edit else (OWN, 1.0)
    return update | {self.region: label, self.kind: kind, self.share: share}

  def _click(self, choice: Choice, event: gr.SelectData, *values: str) -> dict:
    column, row = event.index
    return self.choose(choice, int(choice.source[row, column]), *values)

  def use_kind(self, choice: Choice, kind: str, *values: str) -> dict:
    """Gives the selected region its own code, or the mean code of its label."""
    if kind == OTHER:
      raise DataError('click the other image below')
    return self._edit(choice, Edit(kind, self._run.mean, 1.0), *values)

  def use_other(self, choice: Choice, index: int, *values: str) -> dict:
    """Gives the selected region its code in an example of the data."""
    return self._edit(choice, Edit(OTHER, self._codes_of(index), 1.0), *values)

  def _use_other(self, choice: Choice, event: gr.SelectData, *values: str) -> dict:
    return self.use_other(choice, event.index, *values)

  def blend(self, choice: Choice, share: float, *values: str) -> dict:
    """Blends the region's own code with the code chosen for it."""
    if choice.region not in choice.edits:
      raise DataError('choose a region first, and a code for it other than its own')
    return self._edit(choice, choice.edits[choice.region]._replace(share=share), *values)

  def _edit(self, choice: Choice, edit: Edit, *values: str) -> dict:
    if choice.region is None:
      raise DataError('choose a region first: click it on the map of regions')
    edits = {label: old for label, old in choice.edits.items() if label != choice.region}
    if edit.kind != OWN:
      edits[choice.region] = edit
    update = self.render(choice.edited(edits, self._run.mean), *values)
    return update | {self.kind: edit.kind, self.share: edit.share}

  @property
  def _size(self) -> tuple[int, int]:
    return tuple(self._run.config.data.eval_crop or self._run.config.data.crop)

  @functools.lru_cache  # noqa: B019
  def _codes_of(self, index: int) -> RegionCodes:
    return methods.encode(self._run, self._examples[index])

  @functools.lru_cache  # noqa: B019
  def _superpixels_of(self, index: int) -> np.ndarray:
    example = self._examples[index]
    return self._outlined(example['target'], example['labels'])

  def _outlined(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    parts = self._run.extractor.superpixels(image, labels)
    return painting.superpixels(image, labels, parts)
