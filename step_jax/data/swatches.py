"""`swatches`: synthetic pairs whose styles are known, for demonstration, tests and measurement.

The source is a layout drawing: ground and sky, and a few discs, boxes and triangles, each area
filled with the flat colour of its class. The target is the same layout *rendered*: a palette gives
every class its colour, woven stripes give it texture, and a light from one side shades the areas
and throws their shadows. Palette, texture and light are drawn per picture from continuous ranges
and do not depend on the layout, so a source has endlessly many right answers and the style of a
picture is exactly its `Style`.

In `swatches_regional` every class of a picture has its own colour and stripes, independent of those
of the others; the light is common. The style of a region is exactly that of `region_styles_of`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import numpy as np

from step_jax.data import folders

# Built-in data sets, as `data.path` names them.
SETS = ('swatches', 'swatches_regional')
NUM_CLASSES = 5
# Flat colours of the classes in a source: sky, ground, disc, box, triangle.
CLASS_COLORS = np.array(
  [(230, 230, 230), (120, 120, 120), (220, 60, 60), (60, 170, 80), (60, 90, 210)], np.float32
)


@dataclasses.dataclass(frozen=True)
class Style:
  """The factors of a target picture.

  Attributes:
    hue: first hue of the palette, a part of the colour circle in [0, 1).
    spread: how far the hues of the five classes fan out from it, in [0.05, 0.5].
    saturation: of the palette, in [0.25, 0.95].
    brightness: of the palette, in [0.55, 1].
    frequency: stripes per picture side, in [3, 12].
    contrast: of the stripes, in [0, 0.5].
    light_angle: direction the light comes from, radians in [0, 2 pi).
    light_strength: of shading and shadows, in [0.1, 0.7].
  """

  hue: float
  spread: float
  saturation: float
  brightness: float
  frequency: float
  contrast: float
  light_angle: float
  light_strength: float


RANGES = {
  'hue': (0.0, 1.0),
  'spread': (0.05, 0.5),
  'saturation': (0.25, 0.95),
  'brightness': (0.55, 1.0),
  'frequency': (3.0, 12.0),
  'contrast': (0.0, 0.5),
  'light_angle': (0.0, 2 * np.pi),
  'light_strength': (0.1, 0.7),
}


# Factors in which the classes of a picture of `swatches_regional` differ.
REGION_FACTORS = ('hue', 'saturation', 'brightness', 'frequency', 'contrast')


@dataclasses.dataclass(frozen=True)
class Shape:
  """One object of a layout: class 2 disc, 3 box, 4 triangle.

  Centre and radius in parts of the side.
  """

  kind: int
  x: float
  y: float
  radius: float


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is where in a picture.

  The height of the horizon (a part of the side, from the top) and objects, back to front.
  """

  horizon: float
  shapes: tuple[Shape, ...]


def draw_style(rng: np.random.Generator) -> Style:
  """A style with every factor uniform in its range."""
  return Style(**{name: float(rng.uniform(*limits)) for name, limits in RANGES.items()})


def draw_layout(rng: np.random.Generator) -> Layout:
  """A layout of two to five objects."""
  horizon = float(rng.uniform(0.35, 0.65))
  shapes = tuple(
    Shape(
      kind=int(rng.integers(2, NUM_CLASSES)),
      x=float(rng.uniform(0.15, 0.85)),
      y=float(rng.uniform(0.2, 0.85)),
      radius=float(rng.uniform(0.09, 0.24)),
    )
    for _ in range(rng.integers(2, 6))
  )
  return Layout(horizon, shapes)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
  """Pixel centres as `x, y` in [0, 1], each float32 `[size, size]`."""
  axis = (np.arange(size, dtype=np.float32) + 0.5) / size
  return np.meshgrid(axis, axis)


def _inside(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  dx, dy = (x - shape.x) / shape.radius, (y - shape.y) / shape.radius
  if shape.kind == 2:
    return dx**2 + dy**2 < 1
  if shape.kind == 3:
    return (np.abs(dx) < 0.9) & (np.abs(dy) < 0.9)
  return (dy < 0.8) & (dy > 2 * np.abs(dx) - 1)


def _label_map(layout: Layout, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  labels = np.where(y < layout.horizon, 0, 1)
  for shape in layout.shapes:
    labels = np.where(_inside(shape, x, y), shape.kind, labels)
  return labels


def render_source(layout: Layout, size: int) -> np.ndarray:
  """The drawing of a layout: uint8 `[size, size, 3]`, one flat colour a class."""
  x, y = _grid(2 * size)
  return _shrink(CLASS_COLORS[_label_map(layout, x, y)])


def render_labels(layout: Layout, size: int) -> np.ndarray:
  """The class of each pixel of a layout: uint8 `[size, size]`."""
  return _label_map(layout, *_grid(size)).astype(np.uint8)


def render_target(layout: Layout, style: Style | Sequence[Style], size: int) -> np.ndarray:
  """The picture of a layout in a style: uint8 `[size, size, 3]`.

  A style for each class gives its colour and stripes; the light is that of the first.
  """
  x, y = _grid(2 * size)
  labels = _label_map(layout, x, y)
  styles = [style] * NUM_CLASSES if isinstance(style, Style) else style
  style = styles[0]
  colors = np.stack([palette(own)[number] for number, own in enumerate(styles)])
  color = colors[labels] * (1 + _stripes(styles, labels, x, y))[..., None]
  light_x, light_y = np.cos(style.light_angle), np.sin(style.light_angle)
  shade = style.light_strength * ((x - 0.5) * light_x + (y - 0.5) * light_y)
  for shape in layout.shapes:
    # An object darkens what lies behind it on the side away from the light, and is rounded by the
    # light itself.
    reach = 0.35 * shape.radius
    shadow = _inside(shape, x + reach * light_x, y + reach * light_y) & ~_inside(shape, x, y)
    behind = labels < 2
    shade = shade - 0.6 * style.light_strength * (shadow & behind)
  return _shrink(np.clip(color * (1 + shade)[..., None], 0, 1) * 255)


def palette(style: Style) -> np.ndarray:
  """Colours of the classes in a style: float32 `[5, 3]`, RGB in [0, 1]."""
  fan = np.arange(NUM_CLASSES, dtype=np.float32)
  hues = style.hue + style.spread * fan / (NUM_CLASSES - 1) * 2
  # Neighbouring classes differ in value as well, so that they stay apart where hues come close.
  values = style.brightness * np.array([1.0, 0.62, 0.9, 0.5, 0.75], np.float32)
  wheel = np.abs((hues[:, None] * 6 + np.array([0, 4, 2], np.float32)) % 6 - 3) - 1
  pure = np.clip(wheel, 0, 1)
  return (values[:, None] * (1 - style.saturation * (1 - pure))).astype(np.float32)


def _stripes(
  styles: Sequence[Style], labels: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
  """Stripes of the frequency of each class's style; each class has a direction of its own."""
  angle = np.pi * np.arange(NUM_CLASSES, dtype=np.float32)[labels] / NUM_CLASSES
  frequency = np.array([2 * np.pi * style.frequency for style in styles], np.float32)
  contrast = np.array([style.contrast for style in styles], np.float32)
  phase = frequency[labels] * (x * np.cos(angle) + y * np.sin(angle))
  return contrast[labels] * np.sin(phase)


def _shrink(image: np.ndarray) -> np.ndarray:
  """2x2 mean of `[2n, 2n, 3]` as uint8: smooth edges."""
  size = image.shape[0] // 2
  return np.rint(image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))).astype(np.uint8)


def style_of(name: str, seed: int = 0) -> Style:
  """The style of the example of that name (`train/00012`): its ground truth."""
  return draw_style(_generator(name, 'style', seed))


def region_styles_of(name: str, seed: int = 0) -> tuple[Style, ...]:
  """Styles of the classes in the example of that name of `swatches_regional`: its ground truth.

  The factors `REGION_FACTORS` of each class are drawn independently; all have the light of
  `style_of`, and no spread.
  """
  light = {key: getattr(style_of(name, seed), key) for key in ('light_angle', 'light_strength')}
  return tuple(
    dataclasses.replace(draw_style(_generator(name, f'region{i}', seed)), spread=0.0, **light)
    for i in range(NUM_CLASSES)
  )


def layout_of(name: str, seed: int = 0) -> Layout:
  """The layout of the example of that name."""
  return draw_layout(_generator(name, 'layout', seed))


def render(
  name: str, size: int, seed: int = 0, labelled: bool = False, regional: bool = False
) -> Mapping[str, np.ndarray]:
  """The pair of that name: `{'A': source, 'B': target}`, uint8 `[size, size, 3]`.

  Args:
    name: of an example.
    size: side of the images, px.
    seed: of the data set.
    labelled: whether to add `labels`, uint8 `[size, size]`, the class of each pixel.
    regional: whether every class has a style of its own, see `region_styles_of`.
  """
  layout = layout_of(name, seed)
  styles = region_styles_of(name, seed) if regional else [style_of(name, seed)] * NUM_CLASSES
  pair = {'A': render_source(layout, size), 'B': render_target(layout, styles, size)}
  return pair | ({'labels': render_labels(layout, size)} if labelled else {})


def _generator(name: str, purpose: str, seed: int) -> np.random.Generator:
  return np.random.default_rng([seed, *f'{purpose}/{name}'.encode()])


def picture_set(
  size: int,
  train: int = 2000,
  val: int = 64,
  seed: int = 0,
  labelled: bool = False,
  regional: bool = False,
) -> folders.PictureSet:
  """The data set, ready to prepare.

  `train` and `val` pairs of `size` px, the same for the same arguments, see `render`.
  """
  set_name = SETS[regional]
  label = '-labels' * labelled
  splits = {
    split: [
      folders.Example(
        name,
        functools.partial(render, name, size, seed, labelled, regional),
        # Pixels of other machines may differ in the last bit; what is drawn does not.
        f'{set_name}-{seed}{label}',
      )
      for name in (f'{split}/{i:05d}' for i in range(count))
    ]
    for split, count in (('train', train), ('val', val))
  }
  fingerprint = f'{set_name}-{size}-{train}-{val}-{seed}{label}'
  palette = 'swatches' * labelled
  return folders.PictureSet('two_folders', splits, fingerprint, palette=palette)
