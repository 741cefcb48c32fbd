"""`swatches`: synthetic pairs with known styles, for demonstrations, tests and measurements.

The source is a drawing of a layout: ground and sky, and a few discs, boxes and triangles, each
filled with the colour of its class. The target is a rendering of the same layout: a palette defines
the colours of the classes, stripes are the texture, and a light from one side causes shading and
shadows. Palette, texture and light are sampled per image from continuous ranges, independently of
the layout. A source therefore has infinitely many correct targets, and the style of an image is
exactly its `Style`.

In `swatches_regional`, each class of an image has its own colour and stripes, independent of the
other classes; the light is common. The style of a region is exactly that in `region_styles_of`.
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
  """The style factors of a target image.

  Attributes:
    hue: first hue of the palette, as a fraction of the colour circle, in [0, 1).
    spread: distance between the hues of the five classes, in [0.05, 0.5].
    saturation: saturation of the palette, in [0.25, 0.95].
    brightness: brightness of the palette, in [0.55, 1].
    frequency: number of stripes per side of the image, in [3, 12].
    contrast: contrast of the stripes, in [0, 0.5].
    light_angle: direction of the light source, radians in [0, 2 pi).
    light_strength: strength of shading and shadows, in [0.1, 0.7].
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


# Factors that differ between the classes of an image in `swatches_regional`.
REGION_FACTORS = ('hue', 'saturation', 'brightness', 'frequency', 'contrast')


@dataclasses.dataclass(frozen=True)
class Shape:
  """An object in a layout: class 2 (disc), 3 (box) or 4 (triangle).

  Centre and radius are fractions of the side of the image.
  """

  kind: int
  x: float
  y: float
  radius: float


@dataclasses.dataclass(frozen=True)
class Layout:
  """Positions of everything in an image.

  The height of the horizon, as a fraction of the side from the top, and objects from back to front.
  """

  horizon: float
  shapes: tuple[Shape, ...]


def draw_style(rng: np.random.Generator) -> Style:
  """Samples a style; every factor is uniform in its range."""
  return Style(**{name: float(rng.uniform(*limits)) for name, limits in RANGES.items()})


def draw_layout(rng: np.random.Generator) -> Layout:
  """Samples a layout of two to five objects."""
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
  """Draws a layout, uint8 `[size, size, 3]`, with one colour per class."""
  x, y = _grid(2 * size)
  return _shrink(CLASS_COLORS[_label_map(layout, x, y)])


def render_labels(layout: Layout, size: int) -> np.ndarray:
  """The class of each pixel of a layout: uint8 `[size, size]`."""
  return _label_map(layout, *_grid(size)).astype(np.uint8)


def render_target(layout: Layout, style: Style | Sequence[Style], size: int) -> np.ndarray:
  """Renders a layout in a style, uint8 `[size, size, 3]`.

  With one style per class, each class has its own colour and stripes, and the first style defines
  the light.
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
    # An object casts a shadow on the background, away from the light.
    reach = 0.35 * shape.radius
    shadow = _inside(shape, x + reach * light_x, y + reach * light_y) & ~_inside(shape, x, y)
    behind = labels < 2
    shade = shade - 0.6 * style.light_strength * (shadow & behind)
  return _shrink(np.clip(color * (1 + shade)[..., None], 0, 1) * 255)


def palette(style: Style) -> np.ndarray:
  """Colours of the classes in a style: float32 `[5, 3]`, RGB in [0, 1]."""
  fan = np.arange(NUM_CLASSES, dtype=np.float32)
  hues = style.hue + style.spread * fan / (NUM_CLASSES - 1) * 2
  # Neighbouring classes also differ in value, in case their hues are similar.
  values = style.brightness * np.array([1.0, 0.62, 0.9, 0.5, 0.75], np.float32)
  wheel = np.abs((hues[:, None] * 6 + np.array([0, 4, 2], np.float32)) % 6 - 3) - 1
  pure = np.clip(wheel, 0, 1)
  return (values[:, None] * (1 - style.saturation * (1 - pure))).astype(np.float32)


def _stripes(
  styles: Sequence[Style], labels: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
  """Stripes with the frequency of the style of each class; directions differ between classes."""
  angle = np.pi * np.arange(NUM_CLASSES, dtype=np.float32)[labels] / NUM_CLASSES
  frequency = np.array([2 * np.pi * style.frequency for style in styles], np.float32)
  contrast = np.array([style.contrast for style in styles], np.float32)
  phase = frequency[labels] * (x * np.cos(angle) + y * np.sin(angle))
  return contrast[labels] * np.sin(phase)


def _shrink(image: np.ndarray) -> np.ndarray:
  """Averages 2x2 px of `[2n, 2n, 3]`, for smooth edges, and converts to uint8."""
  size = image.shape[0] // 2
  return np.rint(image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))).astype(np.uint8)


def style_of(name: str, seed: int = 0) -> Style:
  """Ground-truth style of the example with that name, such as `train/00012`."""
  return draw_style(_generator(name, 'style', seed))


def region_styles_of(name: str, seed: int = 0) -> tuple[Style, ...]:
  """Ground-truth styles of the classes in an example of `swatches_regional`.

  The factors `REGION_FACTORS` of each class are sampled independently. All classes have the light
  of `style_of`, and no spread.
  """
  light = {key: getattr(style_of(name, seed), key) for key in ('light_angle', 'light_strength')}
  return tuple(
    dataclasses.replace(draw_style(_generator(name, f'region{i}', seed)), spread=0.0, **light)
    for i in range(NUM_CLASSES)
  )


def layout_of(name: str, seed: int = 0) -> Layout:
  """Layout of the example with that name."""
  return draw_layout(_generator(name, 'layout', seed))


def render(
  name: str, size: int, seed: int = 0, labelled: bool = False, regional: bool = False
) -> Mapping[str, np.ndarray]:
  """Renders the pair with that name: `{'A': source, 'B': target}`, uint8 `[size, size, 3]`.

  Args:
    name: name of an example.
    size: side of the images, px.
    seed: seed of the data set.
    labelled: whether to add `labels`, uint8 `[size, size]`, the class of each pixel.
    regional: whether each class has its own style, see `region_styles_of`.
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
  """The data set, to be prepared.

  It has `train` and `val` pairs of `size` px, which depend only on the arguments; see `render`.
  """
  set_name = SETS[regional]
  label = '-labels' * labelled
  splits = {
    split: [
      folders.Example(
        name,
        functools.partial(render, name, size, seed, labelled, regional),
        # Pixels may differ in the last bit between machines; the sampled factors do not.
        f'{set_name}-{seed}{label}',
      )
      for name in (f'{split}/{i:05d}' for i in range(count))
    ]
    for split, count in (('train', train), ('val', val))
  }
  fingerprint = f'{set_name}-{size}-{train}-{val}-{seed}{label}'
  palette = 'swatches' * labelled
  return folders.PictureSet('two_folders', splits, fingerprint, palette=palette)
