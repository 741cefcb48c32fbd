"""The page in a browser, with mouse and keyboard, in wide and narrow windows."""

import io
import shutil
import socket
import urllib.request

import numpy as np
from PIL import Image
import pytest

from step_jax.demo import server
from step_jax.errors import RunError
from step_jax.methods.step.page import studio

for package, extra in {'gradio': 'demo', 'sklearn': 'demo', 'playwright': 'browser'}.items():
  reason = f"{package} is missing: pip install -e '.[{extra}]'"
  pytest.importorskip(package, reason=reason)
CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='chromium is not installed')
PATIENCE_MS = 120_000
LOCAL = ('127.0.0.1', 'localhost', '::1')


@pytest.fixture(scope='module')
def known(trained_run):
  """Expected content of the page."""
  return studio.open_run(trained_run[0])


@pytest.fixture(scope='module')
def contacted():
  """Addresses that this process connects to."""
  found = []
  connect = socket.socket.connect

  def recorded(self, address):
    if self.family != socket.AF_UNIX:
      found.append(address[0])
    return connect(self, address)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(socket.socket, 'connect', recorded)
    yield found


@pytest.fixture(scope='module')
def address(trained_run, contacted):
  with server.running(trained_run[0], server.HOST, free_port()) as found:
    yield found


def free_port():
  with socket.socket() as probe:
    probe.bind((server.HOST, 0))
    return probe.getsockname()[1]


@pytest.fixture(scope='module')
def browser():
  from playwright import sync_api

  with sync_api.sync_playwright() as tool:
    # In a container the tests run as root, for which Chromium has no sandbox.
    chromium = tool.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield chromium
    chromium.close()


class Tour:
  """A visit to the page."""

  def __init__(self, page, address):
    self.page = page
    self.requests = []
    self.errors = []
    page.set_default_timeout(PATIENCE_MS)
    page.on('request', lambda request: self.requests.append(request.url))
    page.on('pageerror', lambda error: self.errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector('#translation img')
    # The event listeners exist only from here on.
    page.wait_for_selector('#input[role=group]')

  def source_of(self, place):
    return self.page.locator(f'{place} img').get_attribute('src')

  def translation(self, action):
    """The image shown after an action: uint8 `[H, W, 3]`."""
    before = self.source_of('#translation')
    action()
    self.page.wait_for_function(
      "before => !['', before].includes(document.querySelector('#translation img')?.src ?? '')",
      arg=before,
    )
    return fetch(self.source_of('#translation'))

  def tab(self, name):
    self.page.get_by_role('tab', name=name, exact=True).click()

  def control(self, role, name):
    return self.page.get_by_role(role, name=name, exact=True)

  def thumbnail(self, gallery, index):
    return self.page.get_by_role('group', name=gallery).locator('.thumbnail-item').nth(index)

  def values(self):
    sliders = self.page.get_by_label('number input for Dimension')
    return [float(slider.input_value()) for slider in sliders.all()]


def fetch(url):
  with urllib.request.urlopen(url) as answer:
    return np.asarray(Image.open(io.BytesIO(answer.read())))


@pytest.fixture
def visit(browser, address):
  pages = []

  def open_page(width=1280, height=900):
    pages.append(browser.new_page(viewport={'width': width, 'height': height}))
    return Tour(pages[-1], address)

  yield open_page
  for page in pages:
    page.close()


def png(folder, name, size, seed=0):
  image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
  Image.fromarray(image).save(folder / name)
  return folder / name, image


def near(shown, expected):
  """Whether images are equal up to rounding in batches."""
  return shown.shape == expected.shape and np.abs(shown.astype(int) - expected).max() <= 1


def test_the_tour(visit, known, tmp_path, contacted):
  tour = visit()
  page, found = tour.page, known.pictures
  sources, codes = found.inputs, found.codes
  assert near(fetch(tour.source_of('#translation')), known.translate(sources[0], codes[0]))
  ends = [fetch(tour.source_of(end)) for end in ('#first', '#second')]
  np.testing.assert_array_equal(ends, [found.thumbnails[i] for i in known.first_styles])

  # Inputs: from the run, then from the user, with an odd size.
  shown = tour.translation(tour.thumbnail('Inputs of', 2).click)
  assert near(shown, known.translate(sources[2], codes[0]))
  path, source = png(tmp_path, 'odd.png', (19, 33))
  shown = tour.translation(lambda: page.locator('#input input').set_input_files(path))
  assert near(shown, known.translate(source, codes[0]))

  # Styles: one of the user, one of the run, and a blend.
  path, style = png(tmp_path, 'style.png', (24, 16), seed=1)
  first = known.encode(style)
  shown = tour.translation(lambda: page.locator('#first input[type=file]').set_input_files(path))
  assert near(shown, known.translate(source, first))
  tour.control('radio', 'Second style').check()
  shown = tour.translation(tour.thumbnail('Styles of', 5).click)
  assert near(shown, known.translate(source, codes[5]))
  blend = page.get_by_label('range slider for From the first style')
  assert float(blend.input_value()) == 1
  shown = tour.translation(lambda: blend.fill('0.25'))
  between = first + 0.25 * (codes[5] - first)
  assert near(shown, known.translate(source, between))

  # Every dimension; those that were not changed keep all their decimals.
  tour.tab('Code')
  np.testing.assert_allclose(tour.values(), known.sliders.values(between), atol=1e-6)
  moved = between.copy()
  moved[3] = max(known.sliders.low[3], known.sliders.high[3], key=lambda end: abs(end - between[3]))
  slider = page.get_by_label('range slider for Dimension 4')
  shown = tour.translation(lambda: slider.fill(str(moved[3])))
  assert near(shown, known.translate(source, moved))

  # The map.
  tour.tab('Map')
  chart = page.locator('#map img')
  box = chart.bounding_box()
  assert box['width'] == pytest.approx(box['height'], abs=2)
  place = known.style_map.style_map.points[known.style_map.pictured[2]]
  chosen = known.style_map.at(*place)
  spot = {'x': place[0] * box['width'], 'y': place[1] * box['height']}
  shown = tour.translation(lambda: chart.click(position=spot))
  assert near(shown, known.translate(source, codes[chosen]))
  assert near(fetch(tour.source_of('#second')), found.thumbnails[chosen])

  # New styles.
  tour.tab('New')
  tour.control('button', 'Draw new styles').click()
  tour.thumbnail('The input in', 5).wait_for()
  shown = tour.translation(tour.thumbnail('The input in', 4).click)
  assert near(shown, known.translate(source, known.new_styles(6, 1)[4]))
  assert page.get_by_label('Seed').input_value() == '2'

  with page.expect_download() as download:
    page.locator('#result').get_by_text('Download as PNG').click()
  assert download.value.suggested_filename == 'translation.png'
  saved = np.asarray(Image.open(download.value.path()))
  np.testing.assert_array_equal(saved, shown)

  page.screenshot(path=tmp_path / 'tour.png', full_page=True)
  assert not tour.errors
  away = [
    url for url in tour.requests if not url.startswith(('http://127.0.0.1:', 'data:', 'blob:'))
  ]
  assert not away
  assert not set(contacted) - set(LOCAL)


def test_a_drawing_is_translated(visit, known):
  tour = visit()
  page = tour.page
  tour.tab('Draw')
  tour.control('button', 'Clear canvas').wait_for()
  canvas = page.locator('#canvas canvas').first
  page.wait_for_timeout(1000)  # It is resized on load.
  box = canvas.bounding_box()
  middle = [box['x'] + box['width'] / 2, box['y'] + box['height'] / 2]
  page.mouse.move(*middle)
  page.mouse.down()
  for step in range(12):
    page.mouse.move(middle[0] + 4 * step, middle[1] + 2 * step)
  page.mouse.up()
  page.wait_for_timeout(1000)  # Strokes are sent with a delay.
  shown = tour.translation(tour.control('button', 'Translate the drawing').click)
  assert shown.shape == known.pictures.inputs[0].shape
  blank = np.broadcast_to(np.array(known.palette[0], np.uint8), shown.shape)
  assert not near(shown, known.translate(np.ascontiguousarray(blank), known.first_codes()[0]))


def test_errors_describe_the_problem(visit, tmp_path):
  tour = visit()
  (tmp_path / 'notes.png').write_text('no picture')
  tour.page.locator('#input input').set_input_files(tmp_path / 'notes.png')
  tour.page.get_by_text('notes.png: cannot be read as an image').wait_for()
  tour.tab('Draw')
  tour.control('button', 'Clear canvas').wait_for()
  tour.control('button', 'Translate the drawing').click()
  tour.page.get_by_text('the canvas is empty').wait_for()
  assert tour.page.locator('#translation img').is_visible()
  assert not tour.page.locator('#translation .error').count()


def test_a_run_without_mapper_is_reported(browser, trained_run, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(trained_run[0], folder, ignore=shutil.ignore_patterns('mapper'))
  with server.running(folder, server.HOST, free_port()) as address:
    page = browser.new_page()
    tour = Tour(page, address)
    tour.tab('New')
    page.get_by_text(f'step-jax train mapper --workdir {folder}').wait_for()
    page.close()


# The focused element, as a screen reader would name it.
NAME = """() => {
  const one = document.activeElement;
  const label = one.labels?.[0]?.innerText || one.innerText || one.querySelector('img')?.alt;
  return (one.getAttribute('aria-label') || label || one.title || '').trim();
}"""


def test_keyboard_alone(visit, known):
  tour = visit()
  page, codes = tour.page, known.pictures.codes
  names = []
  while 'Download as PNG' not in names:
    page.keyboard.press('Tab')
    names.append(page.evaluate(NAME))
    assert len(names) < 200
  assert all(names), names
  for name in ('Draw', 'Upload file', 'Thumbnail 1 of 5', 'First style', 'Map', 'New', 'Code'):
    assert name in names
  assert 'range slider for From the first style (0) to the second (1)' in names
  thumbnail = tour.thumbnail('Styles of', 3)
  thumbnail.focus()
  shown = tour.translation(lambda: page.keyboard.press('Enter'))
  assert near(shown, known.translate(known.pictures.inputs[0], codes[3]))
  page.get_by_role('tab', name='Map').focus()
  page.keyboard.press('Enter')
  page.get_by_label('The same styles as a list').focus()
  page.keyboard.type(known.pictures.names[7])
  shown = tour.translation(lambda: page.keyboard.press('Enter'))
  assert near(shown, known.translate(known.pictures.inputs[0], codes[7]))
  page.get_by_label('range slider for From').focus()
  tour.translation(lambda: page.keyboard.press('ArrowRight'))


def test_a_narrow_screen(visit):
  tour = visit(390, 844)
  for tab in ('Pictures', 'Map', 'New', 'Code'):
    tour.tab(tab)
    assert tour.page.evaluate('document.documentElement.scrollWidth') <= 390
    # The translation is visible on every tab.
    box = tour.page.locator('#translation img').bounding_box()
    assert box['y'] >= 0 and box['y'] + box['height'] <= 844 and box['height'] > 100


def test_a_port_in_use_is_one_line(trained_run, address):
  port = int(address.rstrip('/').rsplit(':', 1)[1])
  with pytest.raises(RunError, match=f'127.0.0.1:{port}: cannot be bound to.*--port {port + 1}'):
    with server.running(trained_run[0], server.HOST, port):
      pass


def test_only_this_machine_is_served(address):
  assert address.startswith('http://127.0.0.1:')
  port = int(address.rstrip('/').rsplit(':', 1)[1])
  with socket.socket() as other:
    # The port is free on another address of this machine: the server has bound to one only.
    other.bind(('127.0.0.2', port))
