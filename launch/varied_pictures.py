"""Makes a varied set of free images: `python launch/varied_pictures.py FOLDER [--size 64]`.

For a style encoder that has seen many palettes, textures and tones, but no image of the set that it
is used for: `step-jax reproduce generalisation --unrelated FOLDER …`. Writes `FOLDER/train`
and `FOLDER/val`. Needs scikit-image, scikit-learn and matplotlib, whose sample photographs are
free.

Half of the images are crops of these photographs, with other hues, tones and contrasts; those of
the validation split are of other photographs. A quarter are mosaics of procedural textures, and a
quarter are targets of `swatches` with noise.
"""

import argparse
from collections.abc import Callable, Sequence
import colorsys
import pathlib

import numpy as np
from PIL import Image

from step_jax.data import swatches

# Package -> its photographs.
PHOTOGRAPHS = {
  'skimage/data': (
    'astronaut.png', 'brick.png', 'camera.png', 'chelsea.png', 'coins.png', 'grass.png',
    'gravel.png', 'hubble_deep_field.jpg', 'ihc.png', 'moon.png', 'motorcycle_left.png',
    'retina.jpg', 'rocket.jpg',
  ),
  'sklearn/datasets/images': ('flower.jpg',),
  'matplotlib/mpl-data/sample_data': ('Minduka_Present_Blue_Pack.png',),
}  # fmt: skip
HELD_OUT = {
  'skimage/data': ('coffee.png',),
  'sklearn/datasets/images': ('china.jpg',),
  'matplotlib/mpl-data/sample_data': ('grace_hopper.jpg',),
}
# Numbers of images.
SPLITS = {'train': (2000, PHOTOGRAPHS), 'val': (200, HELD_OUT)}
# Smallest part of a photograph's shorter side that a crop has.
_CLOSEST = 0.2


def load(packages: dict[str, Sequence[str]]) -> list[Image.Image]:
  """The photographs of installed packages."""
  site = pathlib.Path(np.__file__).parents[1]
  return [
    Image.open(site / folder / name).convert('RGB')
    for folder, names in packages.items()
    for name in names
  ]


def crop(rng: np.random.Generator, photograph: Image.Image, size: int) -> np.ndarray:
  """A random square of a photograph, float64 `[size, size, 3]` in [0, 1]."""
  side = rng.uniform(_CLOSEST, 1) * min(photograph.size)
  left, top = (rng.uniform(0, length - side) for length in photograph.size)
  box = left, top, left + side, top + side
  cut = photograph.resize((size, size), Image.Resampling.LANCZOS, box)
  return np.asarray(cut, np.float64)[:, :: rng.choice([-1, 1])] / 255


def retouch(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
  """Changes hue, saturation, contrast and tone of an image `[H, W, 3]` in [0, 1]."""
  grey = image.mean(axis=-1, keepdims=True)
  if rng.random() < 0.25:
    # Two inks.
    dark, light = sorted((colour(rng) for _ in range(2)), key=np.sum)
    image = dark + (light - dark) * grey
  else:
    # A turn around the grey axis (Rodrigues).
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.normal(0, 0.3)
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(axis, image - grey)
    turned = np.cos(angle) * (image - grey) + np.sin(angle) * cross
    image = grey + rng.uniform(0.1, 1.6) * turned
  gamma, contrast = np.exp(rng.normal(0, 0.4)), rng.uniform(0.5, 1.3)
  tint = rng.normal(1, 0.1, 3)
  image = 0.5 + contrast * (np.clip(image, 0, 1) ** gamma - 0.5)
  return np.clip(image * tint, 0, 1)


def colour(rng: np.random.Generator) -> np.ndarray:
  """A random RGB colour in [0, 1]; half of them are muted."""
  saturation = rng.uniform(0, 1) if rng.random() < 0.5 else rng.uniform(0, 0.35)
  return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.1, 1)))


def noise(rng: np.random.Generator, size: int) -> np.ndarray:
  """Noise whose amplitude falls with a power of the frequency, `[size, size]`, standardised."""
  frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
  amplitude = np.maximum(frequencies, 1 / size) ** -rng.uniform(0, 2.5)
  spectrum = amplitude * np.exp(2j * np.pi * rng.random(frequencies.shape))
  field = np.fft.irfft2(spectrum, (size, size))
  return (field - field.mean()) / field.std()


def waves(rng: np.random.Generator, size: int) -> np.ndarray:
  """Stripes, a grid or bricks, smooth or sharp, `[size, size]` in [-1, 1]."""
  y, x = np.mgrid[:size, :size] / size
  angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
  along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
  frequency = 2 * np.pi * rng.uniform(2, 16)
  first = np.sin(frequency * along)
  kind = rng.integers(3)
  if kind:
    shift = np.pi * (first > 0) if kind == 2 else 0
    first = np.maximum(first, np.sin(rng.uniform(0.3, 1) * frequency * across + shift))
  return np.tanh(rng.uniform(0.5, 5) * (first + rng.uniform(-0.8, 0.8)))


def texture(rng: np.random.Generator, size: int) -> np.ndarray:
  """One texture in two or three colours, `[size, size, 3]` in [0, 1]."""
  field = rng.choice([noise, waves])(rng, size)
  if rng.random() < 0.5:
    field = field + rng.uniform(0, 0.7) * noise(rng, size)
  inks = np.array([colour(rng) for _ in range(rng.integers(2, 4))])
  base = inks[0]
  inks = base + rng.uniform(0.1, 1) * (inks - base)
  ramp = np.clip((field + 1.5) / 3, 0, 1) * (len(inks) - 1)
  levels = np.arange(len(inks))
  return np.stack([np.interp(ramp, levels, channel) for channel in inks.T], axis=-1)


def mosaic(rng: np.random.Generator, size: int) -> np.ndarray:
  """Regions (nearest of a few points) with a texture each, `[size, size, 3]` in [0, 1]."""
  count = rng.integers(1, 6)
  kinds = [texture(rng, size) for _ in range(rng.integers(1, count + 1))]
  y, x = np.mgrid[:size, :size] / size
  points = rng.random((count, 2))
  region = np.argmin([(x - a) ** 2 + (y - b) ** 2 for a, b in points], axis=0)
  image = np.select([(region % len(kinds) == i)[..., None] for i in range(len(kinds))], kinds)
  light = 1 + rng.uniform(0, 0.5) * ((x - 0.5) * rng.normal() + (y - 0.5) * rng.normal())
  return np.clip(image * light[..., None], 0, 1)


def swatch(rng: np.random.Generator, size: int) -> np.ndarray:
  """A target of `swatches` with noise, `[size, size, 3]` in [0, 1]."""
  style, layout = swatches.draw_style(rng), swatches.draw_layout(rng)
  image = swatches.render_target(layout, style, size) / 255
  image = image * (1 + rng.uniform(0, 0.3) * noise(rng, size)[..., None])
  return retouch(rng, np.clip(image, 0, 1))


def draw(rng: np.random.Generator, photographs: Sequence[Image.Image], size: int) -> np.ndarray:
  """A random image, uint8 `[size, size, 3]`."""

  def photograph(rng, size):
    chosen = photographs[rng.integers(len(photographs))]
    return retouch(rng, crop(rng, chosen, size))

  kinds: list[Callable] = [photograph, photograph, mosaic, swatch]
  return np.rint(kinds[rng.integers(len(kinds))](rng, size) * 255).astype(np.uint8)


def main() -> None:
  """Writes the set to the folder that the command line names."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--size', type=int, default=64)
  given = parser.parse_args()
  for number, (split, (count, packages)) in enumerate(SPLITS.items()):
    photographs = load(packages)
    (given.folder / split).mkdir(parents=True)
    for i in range(count):
      image = draw(np.random.default_rng([number, i]), photographs, given.size)
      Image.fromarray(image).save(given.folder / split / f'{i:05d}.png')


if __name__ == '__main__':
  main()
