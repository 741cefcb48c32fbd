"""Every public object has a docstring in a valid form."""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import step_jax

# Flax, PyTorch and the bench call these; the class docstring says what they take and give.
_BY_CLASS = {'__call__', 'setup', 'forward', 'call'}
# Packages of extras that the tests do without.
_OPTIONAL = {'torch', 'gradio'}


def _members():
  for module_info in pkgutil.walk_packages(step_jax.__path__, 'step_jax.'):
    try:
      module = importlib.import_module(module_info.name)
    except ModuleNotFoundError as error:
      if error.name in _OPTIONAL:
        continue
      raise
    yield module_info.name, module
    for name, member in vars(module).items():
      ours = getattr(member, '__module__', None) == module.__name__
      if name.startswith('_') or not ours or not (inspect.isclass(member) or callable(member)):
        continue
      if inspect.isfunction(member) or inspect.isclass(member):
        yield f'{module_info.name}.{name}', member
      if inspect.isclass(member):
        for method_name, method in vars(member).items():
          public = not method_name.startswith('_')
          if public and method_name not in _BY_CLASS and inspect.isfunction(method):
            inherited = any(method_name in vars(base) for base in member.__mro__[1:])
            if not inherited:
              yield f'{module_info.name}.{name}.{method_name}', method


def test_every_public_object_has_a_docstring():
  missing = [name for name, member in _members() if not (vars_doc(member) or '').strip()]
  assert not missing, missing


def vars_doc(member):
  """The docstring of the thing itself, not the one that a dataclass or a base makes up."""
  doc = member.__doc__
  if inspect.isclass(member) and doc and doc.startswith(f'{member.__name__}('):
    return None
  return doc


def test_functions_on_arrays_document_their_shapes():
  """In the rooms of mathematics public functions name a shape, or say that they give a scalar."""
  for room in ('losses', 'models'):
    package = importlib.import_module(f'step_jax.{room}')
    for info in pkgutil.iter_modules(package.__path__, f'step_jax.{room}.'):
      module = importlib.import_module(info.name)
      for name, member in vars(module).items():
        if inspect.isfunction(member) and member.__module__ == info.name and name[0] != '_':
          doc = member.__doc__
          assert '[' in doc or 'scalar' in doc or 'kernel' in doc, f'{info.name}.{name}'


ROOT = pathlib.Path(__file__).parents[1]


def _docstrings():
  """Every docstring of the repository, private ones too: where it stands, and its text."""
  folders = ('step_jax', 'configs', 'launch', 'tests')
  paths = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
  for path in [ROOT / 'setup.py', *sorted(paths)]:
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        doc = ast.get_docstring(node)
        if doc:
          yield f'{path.relative_to(ROOT)}:{getattr(node, "lineno", 1)}', doc


def faults(doc: str) -> list[str]:
  """What is wrong with the form of a docstring, as where a formatter has cut its first sentence."""
  first, *rest = re.split(r'\n\s*\n', doc.strip())
  found = []
  if '\n' in first or not first.endswith(('.', ':', '?')):
    found.append('the first paragraph is not one line that ends a sentence')
  if re.search(r'\b(et al|e\.g|i\.e|cf|vs|sec|eq|fig|thm)\.$', first):
    found.append('the first line ends with an abbreviation')
  for paragraph in [first, *rest]:
    if paragraph.count('`') % 2:
      found.append('a backtick has no partner')
    # Code may hold anything, and an interval may be half open.
    prose = re.sub(r'`[^`]*`', '', paragraph)
    prose = re.sub(r'[\[(][^\[\](),]+, [^\[\](),]+[\])]', '', prose)
    if not _balanced(prose):
      found.append('a bracket has no partner')
  return found


def _balanced(text: str) -> bool:
  partners, opened = {')': '(', ']': '[', '}': '{'}, []
  for character in text:
    if character in partners.values():
      opened.append(character)
    elif character in partners and (not opened or opened.pop() != partners[character]):
      return False
  return not opened


def test_docstrings_are_well_formed():
  found = {where: wrong for where, doc in _docstrings() if (wrong := faults(doc))}
  assert not found, found


@pytest.mark.parametrize(
  ('doc', 'count'),
  [
    ('A sentence (Gatys et al. 2016), in [0, 1).', 0),
    ('Style (Gatys et al.\n\n2016), and the distance.', 3),
    ('He constant; He et al.\n\n2015, eq. 15.', 1),
    ('No end', 1),
    ('Two\nlines.', 1),
    ('An `open code span.', 1),
    ('Code with `(`.\n\nMore (text].', 1),
  ],
)
def test_faults_of_docstrings_are_detected(doc, count):
  assert len(faults(doc)) == count
