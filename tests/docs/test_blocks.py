"""Runs the commands of the README and docs/, on few images and for a few steps.

Pages are discovered automatically. All blocks run in one folder, with the files that pages mention
(`MY_PICTURES`, `INPUT.png`, …) and with `runs/mine` trained by the commands of the README. Blocks
that need a network, hardware or hours are listed in `LISTED` with the reason, and are checked as
far as possible: arguments are parsed, configurations are created, scripts are parsed by bash. A
block that is neither run nor listed is an error.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import statistics
import subprocess
import sys
import textwrap

import golden_vectors as golden
import numpy as np
from PIL import Image
import pytest
import tf_bundle
import tiny

from step_jax import cli, doctor, methods, reproduce, weights
from step_jax import config as config_lib
from step_jax import main as main_lib
from step_jax.bench import measure, record
from step_jax.data import builder, folders, published
from step_jax.data.labels import Labels
from step_jax.reproduce import jobs
from step_jax.reproduce import run as reproduce_run
from step_jax.train import hosts
from step_jax.weights import nets

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
  path.relative_to(ROOT).as_posix()
  for pattern in ('README.md', 'docs/**/*.md', 'launch/*.md', 'colab/*.md')
  for path in ROOT.glob(pattern)
)
MINE = 'README.md'


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block: its position, its language, and the text after the language."""

  page: str
  line: int
  language: str
  label: str
  text: str

  def __str__(self):
    return f'{self.page}:{self.line}'


def blocks(page: str) -> list[Block]:
  text = (ROOT / page).read_text('utf-8')
  found = []
  for match in re.finditer(r'^([ ]*)```(\w*)[ ]*(.*)\n((?:.*\n)*?)\1```$', text, re.MULTILINE):
    line = text.count('\n', 0, match.start()) + 1
    found.append(Block(page, line, *match.group(2, 3), textwrap.dedent(match.group(4))))
  assert len(found) * 2 == len(re.findall(r'^ *```', text, re.MULTILINE)), page
  return found


# ---- Exceptions: a pattern of commands, why they are not run, and the check made instead.


def parse(shop, words):
  """Checks that the command line accepts the arguments."""
  assert words[0] == 'step-jax', words
  args, rest = cli.parser().parse_known_args(words[1:])
  assert not rest or args.takes_fields, rest
  main_lib.split_fields(rest)


def parse_hub(shop, words):
  """Checks that the command line accepts the arguments, with the export in a folder."""
  parse(shop, [re.sub(r'^hf://[\w@/.-]+$', 'runs/mine/export', word) for word in words])


def make_config(shop, words):
  """Everything before training: arguments, previous stage, fields, and their checks."""

  def keep(config, workdir, change_config=False):
    config_lib.validate(config)
    folder = shop.folder / str(workdir).lstrip('/') / config.stage
    folder.mkdir(parents=True, exist_ok=True)
    config_lib.save(config, folder)
    return folder

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(methods, 'train', keep)
    patch.setattr(hosts, 'join', lambda: None)
    shop.call(words)


def known_extras(shop, words):
  """Checks that the package has the extras."""
  assert words[:2] == ['pip', 'install'] and words[2:], words
  for extras in re.findall(r'\[(.*?)\]', ' '.join(words)):
    assert set(extras.split(',')) <= set(doctor._EXTRAS), extras


def known_sets(shop, words):
  """Checks that the data set is published."""
  parse(shop, words)
  assert words[3] in published.PUBLISHED


def known_weights(shop, words):
  parse(shop, words)
  assert words[3] in nets.NAMES, words
  with pytest.MonkeyPatch.context() as patch:
    asked = []
    patch.setattr(weights, 'get', lambda *arguments: asked.append(arguments))
    shop.call(words)
    assert len(asked) == 1


def make_settings(shop, words):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(measure, 'run', lambda settings: {})
    patch.setattr(record, 'text', lambda record: '')
    patch.setattr(record, 'write', lambda path, record: None)
    shop.call(words)


def plan_rows(shop, words):
  """Creates and checks the configurations of all rows, without measuring or training."""

  def plan(name, settings, workdir, rows):
    table = reproduce.tables()[name]
    for job in jobs.make(table, settings, reproduce_run.choose_rows(table, settings, rows)):
      config_lib.validate(job.config)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(reproduce, 'plan', plan)
    patch.setattr(reproduce, 'reproduce', plan)
    shop.call(words)


def read_script(shop, words):
  """Checks that bash can parse the script, and that it is executable."""
  assert os.access(ROOT / words[0], os.X_OK), words[0]
  bash_reads(words[0])


def bash_reads(script):
  subprocess.run(['bash', '-n', ROOT / script], check=True)


def dry_run(shop, words):
  """Runs the script with --dry-run."""
  verb, *rest = words[1:]
  # The state that `create` and `run` would have written for later verbs.
  kept = {'project': 'my-project', 'zone': 'us-west4-a', 'type': 'v5litepod-16', 'hosts': 4}
  file = shop.folder / 'tpu/my-tpu.json'
  file.unlink(missing_ok=True)
  if verb != 'create':
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({'name': 'my-tpu', **kept, 'made': True, 'command': ['true']}))
  environment = {**os.environ, 'STEP_JAX_TPU_STATE': str(file.parent)}
  process = subprocess.run(
    [ROOT / words[0], verb, '--dry-run', *rest],
    env=environment, capture_output=True, text=True,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  assert 'gcloud' in process.stdout + process.stderr, words
  if '--' in rest and verb == 'run':
    make_config(shop, rest[rest.index('--') + 1 :])


def submit(shop, words):
  bash_reads(words[1])
  make_config(shop, ['python', '-m', 'step_jax.main', *words[2:]])


def read_python(shop, words):
  """Python can read the script."""
  compile((ROOT / words[1]).read_text('utf-8'), words[1], 'exec')


def nothing(shop, words):
  """A command of another program; not checked."""


LISTED: list[tuple[str, str, Callable]] = [
  (r'pip install ', 'needs the network', known_extras),
  (r'python3 -m venv |source .venv', 'make an environment: tests/launch', nothing),
  (r'launch/quickstart\.sh', 'makes an environment: tests/launch/test_environment.py', read_script),
  (r'launch/test\.sh', 'as above, and would not end', read_script),
  (r'launch/tpu_vm\.sh ', 'costs money: tests/launch/test_tpu_vm.py', dry_run),
  (r'step-jax .*hf://', 'needs the network: tests/downloads', parse_hub),
  (r'hf upload ', 'needs an account', nothing),
  (r'(gcloud|kubectl) ', 'costs money: no test', nothing),
  (r'docker ', 'needs docker: tests/launch/test_container.py', nothing),
  (r'sbatch ', 'needs SLURM: tests/launch/test_slurm.py', submit),
  (r'ssh ', 'needs another machine', nothing),
  (r'step-jax .*gs://', 'needs a bucket', parse),
  (r'step-jax data get ', 'needs the network: tests/downloads', known_sets),
  (r'step-jax weights get ', 'needs the network: tests/weights', known_weights),
  (r'step-jax weights convert vgg16\.npy', '60 MB that are not ours: tests/weights', parse),
  (r'step-jax train .*runs/small', 'as the commands before it, with other fields', make_config),
  (r'step-jax bench ', 'takes minutes: tests/bench', make_settings),
  (r'step-jax reproduce ', 'takes hours: tests/reproduce', plan_rows),
  (r'step-jax demo\b', 'serves until it is stopped: tests/demo', parse),
  (r'step-jax doctor', 'its status is that of the machine', parse),
  (r'step-jax export .*--onnx', 'needs an extra: tests/export', parse),
  (r'python launch/ship_run\.py ', 'writes into the package', read_python),
  (r'python launch/varied_pictures\.py ', 'needs photographs of three packages', read_python),
  (r'python -m step_jax\.main .*--distributed', 'needs several hosts', make_config),
]
# Whole blocks, and pages whose commands train for up to an hour.
LISTED_BLOCKS = {
  "step_jax.load('runs/regions')": 'as its page: tests/methods/superstylenet',
  'while sleep 300; do': 'waits for a node to be taken away: read by bash',
  'run.mix(picture': 'needs a run of pSp: tests/methods/psp',
  "onnxruntime.InferenceSession('generate.onnx')": 'needs an extra: tests/export',
}
# File names that look like fields of a group.
FILES = ('.json', '.md', '.npz', '.npy')
LISTED_PAGES = {
  'docs/results.md': 'an hour each: the configuration of every stage is made',
  'docs/psp.md': 'wide networks: small ones are in tests/methods/psp',
  'docs/superstylenet.md': 'trains for minutes: tests/methods/superstylenet',
}


# ---- The folder in which the blocks run.


class Shop:
  """A folder with the files mentioned by pages, and the reader's Python session."""

  def __init__(self, folder: pathlib.Path, pictures: pathlib.Path):
    self.folder = folder
    self.pages: set[str] = set()
    self.given: set[str] = set()
    self.patched: pathlib.Path | None = None
    for name in ('MY_PICTURES', 'pictures', 'MY_FACADES', 'FACADES', 'EDGES2SHOES', 'VARIED'):
      shutil.copytree(pictures, folder / name)
    (folder / 'configs').symlink_to(ROOT / 'configs')
    rng = np.random.default_rng(0)
    self.session = {
      name: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
      for name in ('source', 'style', 'style_a', 'style_b')
    }
    for name in ('sources', 'style_pictures'):
      self.session[name] = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    # A checkpoint of the original implementation.
    (folder / 'train_dir').mkdir()
    tf_bundle.write(folder / 'train_dir/model.ckpt-87500', golden.draw_run())
    (folder / 'MY_INPUTS').mkdir()
    for name in ('INPUT', 'STYLE', 'OTHER', 'MY_INPUTS/one'):
      Image.fromarray(self.session['source']).save(folder / f'{name}.png')
    Image.fromarray(self.session['source'][..., 0] % 3).save(folder / 'LABELS.png')

  def run_page(self, page: str) -> None:
    """Runs the blocks of a page, once."""
    if page in self.pages:
      return
    self.pages.add(page)
    session, before = dict(self.session), None
    for block in blocks(page):
      run = {'sh': self._sh, 'python': self._python, 'diff': self._diff, 'text': self._tree}
      assert block.language in run, f'{block}: a block of language {block.language!r} is not run'
      try:
        # Commands that directly follow a patch run in the patched package.
        package = self.patched if before and before.language == 'diff' else None
        run[block.language](block, session, package)
      except BaseException as error:
        error.add_note(f'in the block at {block}')
        raise
      before = block

  def _python(self, block, session, package):
    if any(text in block.text for text in LISTED_BLOCKS):
      compile(block.text, str(block), 'exec')
      return
    name = re.match(r'# (\w+\.py)\n', block.text)
    if name:  # A file, which later commands run.
      (self.folder / name.group(1)).write_text(block.text)
      return
    exec(compile(block.text, str(block), 'exec'), session)

  def _sh(self, block, session, package):
    subprocess.run(['bash', '-n'], input=block.text, text=True, check=True)
    if any(text in block.text for text in LISTED_BLOCKS):
      return
    for line in block.text.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True)
      if words:
        self.command(words, block.page, package)

  def _diff(self, block, session, package):
    """Applies a patch to a copy of the package."""
    if not self.patched:
      self.patched = self.folder / 'checkout'
      ignored = shutil.ignore_patterns('__pycache__')
      for name in ('step_jax', 'configs'):
        shutil.copytree(ROOT / name, self.patched / name, ignore=ignored)
    # Keeps git from finding a repository above the sandbox, which would change how it reads paths.
    environment = {**os.environ, 'GIT_CEILING_DIRECTORIES': str(self.folder)}
    process = subprocess.run(
      ['git', 'apply', '-'],
      input=block.text, text=True, cwd=self.patched, env=environment, capture_output=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr

  def _tree(self, block, session, package):
    """Creates the folder of a drawn tree, and scans it; the label is the expected layout."""
    root = self.folder / 'trees' / str(block.line)
    if block.label == 'prepared':
      made = builder.prepare(folders.scan('pictures'), root).folder
      assert sorted(block.text.split()[1:]) == sorted(path.name for path in made.iterdir())
      return
    path: list[str] = []
    for line in block.text.splitlines():
      folder, *files = line.split()
      depth = (len(line) - len(line.lstrip())) // 2
      assert folder.endswith('/'), f'{block}: {line!r} begins with no folder'
      path = [*path[:depth], folder]
      here = root.joinpath(*path)
      here.mkdir(parents=True, exist_ok=True)
      for file in files:
        if file.endswith('.npy'):
          np.save(here / file, np.ones((2, 3)))
        elif file != '…':
          Image.new('RGB', (8, 4)).save(here / file)
    layout = 'unpaired' if block.label == 'unpaired' else 'auto'
    labels = Labels('index' if block.label == 'images_labels' else '')
    found = folders.scan(root / path[0], layout, labels=labels)
    assert found.layout == block.label, block
    assert {'train', 'val'} <= set(found.splits)
    parts = {'unpaired': {'A'}, 'images_labels': {'A', 'labels', 'codes'}}
    for examples in found.splits.values():
      for example in examples:
        assert set(example.load()) == parts.get(block.label, {'A', 'B'})

  def command(self, words: list[str], page: str, package: pathlib.Path | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
      while re.fullmatch(r'[A-Z_]+=\S*', words[0]):
        patch.setenv(*words.pop(0).split('=', 1))
      text = ' '.join(words)
      for pattern, _, check in LISTED:
        if re.match(pattern, text):
          return check(self, words)
      if page in LISTED_PAGES:
        return (make_config if words[:2] == ['step-jax', 'train'] else parse)(self, words)
      if package:
        return self._call_patched(words, package)
      if words[1] in ('evaluate', 'report') and text in self.given:
        return None  # What it reads, and so what it does, is the same on every page.
      self.given.add(text)
      return self.call(words, quick=True)

  def call(self, words: list[str], quick: bool = False) -> None:
    """Runs a command in this process; `quick`: with settings that make training short."""
    if words[0] == 'step-jax':
      if words[1] == 'prepare':  # Two pages may prepare the same set.
        shutil.rmtree(words[words.index('--out') + 1], ignore_errors=True)
      status = cli.main([*words[1:], *(short(words) if quick else [])])
    elif words[:3] == ['python', '-m', 'step_jax.main']:
      status = main_lib.main([*words[3:], *(short(words) if quick else [])])
    elif words[0] == 'python':
      if words[1] == '-c':
        exec(words[2], {})
      else:
        runpy.run_path(words[1], run_name='__main__')
      status = 0
    elif words[0] == 'diff':  # 1 if they differ.
      status = subprocess.run(words, capture_output=True).returncode // 2
    else:
      raise AssertionError(f'{words[0]!r} is neither known here nor listed')
    assert status == 0, ' '.join(words)

  def _call_patched(self, words, package):
    assert words[0] == 'step-jax', words
    process = subprocess.run(
      [sys.executable, '-m', 'step_jax.cli', *words[1:], *short(words)],
      env={**os.environ, 'PYTHONPATH': str(package)}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]


def short(words: list[str]) -> list[str]:
  """Additional settings of a command that shorten its training to seconds."""
  if words[:2] == ['step-jax', 'train']:
    file = config_lib.stage_file(words[2])
  elif words[:2] == ['python', '-m']:
    file = next(word for word in words if word.startswith('--config=')).removeprefix('--config=')
  else:
    return []
  config = config_lib.load(file)
  known = dict(config_lib.flatten(config))
  values = {**tiny.FIELDS, 'every.evaluate': 100}
  if known['data.path'] == 'swatches':
    values['data.path'] = 'MY_PICTURES'
  return [f'--config.{name}={value}' for name, value in values.items() if name in known]


@pytest.fixture(scope='module')
def shop(picture_folder, tmp_path_factory):
  """A folder in which the commands of the README were run."""
  folder = tmp_path_factory.mktemp('shop')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(sys, 'path', [*sys.path])  # Blocks may extend it.
    shop = Shop(folder, picture_folder)
    shop.run_page(MINE)
    shutil.copytree('runs/mine', 'runs/other')
    yield shop
  methods.METHODS.pop('regress', None)


@pytest.mark.parametrize('page', PAGES)
def test_blocks_of(page, shop):
  shop.run_page(page)


def test_the_readme_trained_a_run(shop):
  for stage in tiny.STAGES:
    assert (shop.folder / 'runs/mine' / stage / 'checkpoints').is_dir()
  assert (shop.folder / 'runs/mine/report.html').is_file()
  assert shop.folder.joinpath('out/grid.png').is_file()


def test_a_loss_is_added_in_three_places():
  """The patch is applied and its command run with the blocks of the page."""
  patch = next(b.text for b in blocks('docs/extending.md') if '+++ b/step_jax/losses/' in b.text)
  assert len(re.findall(r'^\+\+\+ b/', patch, re.MULTILINE)) <= 3


def test_blocks_that_are_neither_run_nor_listed_fail(shop, monkeypatch):
  with pytest.raises(AssertionError, match='neither known here nor listed'):
    shop.command(['curl', 'https://example.org'], 'README.md', None)
  with pytest.raises(SystemExit):
    shop.command(['step-jax', 'bench', 'nothing'], 'docs/performance.md', None)
  with pytest.raises(AssertionError):
    shop.command(['pip', 'install', '-e', '.[nothing]'], 'README.md', None)


# ---- Inline code.


def spans(page: str) -> list[str]:
  text = re.sub(r'^ *```.*?^ *```$', '', (ROOT / page).read_text('utf-8'), flags=re.M | re.S)
  return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', text)]


@pytest.mark.parametrize('page', PAGES)
def test_commands_within_lines_can_be_parsed(page):
  verbs = set(next(a for a in cli.parser()._actions if a.dest == 'verb').choices)
  for span in spans(page):
    if not span.startswith('step-jax ') or '|' in span:
      continue
    words = shlex.split(span.split('…')[0])
    assert words[1] in verbs | {'VERB'}, span
    if len(words) > 2 and '…' not in span and (words[1], len(words)) != ('weights', 3):
      try:
        parse(None, words)
      except SystemExit:
        # Part of a command, such as `step-jax bench NAME`: all its flags must exist.
        help_ = verb_help(words[1])
        for word in words[2:]:
          assert not word.startswith('--') or word.partition('=')[0] in help_, span


def verb_help(verb: str) -> str:
  verbs = next(action for action in cli.parser()._actions if action.dest == 'verb')
  return verbs.choices[verb].format_help()


@pytest.mark.parametrize('page', PAGES)
def test_fields_within_lines_exist(page):
  # Pages may register methods of their own.
  stages = filter(config_lib.is_ours, methods.STAGES)
  known = {name for stage in stages for name, _ in config_lib.flatten(stage_config(stage))}
  groups = {name.partition('.')[0] for name in known if '.' in name}
  for span in spans(page):
    match = re.fullmatch(r'(?:--config\.)?((\w+)\.\w+)(?:=[^ ]*)?', span)
    if match and match.group(2) in groups:
      name = match.group(1)
      assert name in known or name.endswith(FILES), f'{page}: {span}'


def stage_config(stage):
  return config_lib.load(config_lib.stage_file(stage))


def anchors(page: pathlib.Path) -> set[str]:
  """Anchors of headings on GitHub."""
  titles = re.findall(r'^#+ (.*)$', page.read_text('utf-8'), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES)
def test_links_are_valid(page):
  here = ROOT / page
  text = re.sub(r'^```.*?^```', '', here.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)
  for target in re.findall(r'\]\(([^)\s]+)\)', text):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    file = here.parent / path if path else here
    assert file.exists(), f'{page}: {target}'
    assert not anchor or anchor in anchors(file), f'{page}: {target}'


def test_every_page_can_be_found_from_the_readme():
  linked = set(re.findall(r'\]\(((?:docs|launch)/[\w/]+\.md)', (ROOT / MINE).read_text('utf-8')))
  assert {page for page in PAGES if page.startswith(('docs/', 'launch/'))} - linked == set()


def test_quoted_messages_exist():
  """Quoted messages of the troubleshooting page are in the code."""
  code = ''.join(path.read_text('utf-8') for path in sorted(ROOT.glob('step_jax/**/*.py')))
  code = re.sub(r"'\s*\n\s*f?'", '', code)
  page = (ROOT / 'docs/troubleshooting.md').read_text('utf-8')
  quoted = [' '.join(text.split()) for text in re.findall('“(.*?)”', page, re.DOTALL)]
  assert len(quoted) > 10
  for text in quoted:
    assert text == 'quotes' or text in code, text


def test_numbers_of_the_readme_are_those_of_the_results():
  """Every cell with a number is in a row of its protocol in docs/results.md."""
  row = lambda line: [cell.strip() for cell in line.strip('| ').split('|')]
  results = [row(line) for line in (ROOT / 'docs/results.md').read_text('utf-8').splitlines()]
  lines = (ROOT / MINE).read_text('utf-8').partition('| protocol |')[2].splitlines()[2:]
  table = [row(line) for line in lines[: next(i for i, line in enumerate(lines) if not line)]]
  assert len(table) >= 5
  for name, *cells in table:
    of_protocol = [found[1:] for found in results if found[0] == name.partition(',')[0]]
    # Rows of other runs may be in between.
    rest = iter(of_protocol)
    assert all([cell] in rest for cell in cells if cell != '–'), name


def rounded(value: float, like: str) -> str:
  """The number with as many decimals as another one."""
  return f'{value:.{len(like.partition(".")[2])}f}'


def results_tables() -> list[list[list[str]]]:
  """Tables of docs/results.md, as rows of cells, without the line below the heading."""
  page = (ROOT / 'docs/results.md').read_text('utf-8')
  tables = re.findall(r'(?:^\|.*\n)+', page, re.MULTILINE)
  return [
    [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]
    for table in tables
  ]


def linked(cell: str) -> dict | None:
  """The JSON file that a cell of docs/results.md links to."""
  match = re.fullmatch(r'\[json\]\((\S+)\)', cell)
  return match and json.loads((ROOT / 'docs' / match[1]).read_text('utf-8'))


def test_scores_of_results_are_those_of_the_linked_files():
  """Scores and intervals in a column are those of the file below it, rounded."""
  checked = 0
  for _, _, *rows, (last, *files) in results_tables():
    if last != 'all scores':
      continue
    for column, content in enumerate(map(linked, files), start=1):
      for name, *cells in rows if content else ():
        numbers = re.findall(r'-?[\d.]+', re.match(r'[-\d.]*( \[.*?\])?', cells[column - 1])[0])
        if name.startswith('…') or not numbers:
          continue
        score = content['scores'][re.split(r',? ', name)[0]]
        values = [score['value'], *(score.get('interval') or ())][: len(numbers)]
        for text, value in zip(numbers, values, strict=True):
          assert text == rounded(value, text), (name, cells)
        checked += 1
  assert checked >= 20


def test_scores_of_reproduced_tables_are_those_of_the_linked_file():
  """Means and standard deviations over seeds are those of `table.json`, rounded."""
  checked = 0
  for head, _, *rows in results_tables():
    content = linked(head[0])
    if not content:
      continue
    seeds = {row['row']: row['seeds'] for row in content['rows']}
    assert [row[0] for row in rows] == list(seeds)
    for title, *cells in rows:
      for name, cell in zip(head[1:], cells, strict=True):
        values = [
          seed['minutes'] if name == 'minutes' else seed['scores'].get(name, {}).get('value')
          for seed in seeds[title]
        ]
        if None in values:
          assert cell == '–', (title, name)
          continue
        mean, deviation = cell.split(' ± ')
        assert mean == rounded(statistics.fmean(values), mean), (title, name)
        assert deviation == rounded(statistics.stdev(values), deviation), (title, name)
        checked += 1
  assert checked >= 20
