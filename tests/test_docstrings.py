"""Everything public says what it does."""

import importlib
import inspect
import pkgutil

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


def test_every_public_thing_has_a_docstring():
  missing = [name for name, member in _members() if not (vars_doc(member) or '').strip()]
  assert not missing, missing


def vars_doc(member):
  """The docstring of the thing itself, not the one that a dataclass or a base makes up."""
  doc = member.__doc__
  if inspect.isclass(member) and doc and doc.startswith(f'{member.__name__}('):
    return None
  return doc


def test_functions_on_arrays_say_their_shapes():
  """In the rooms of mathematics public functions name a shape, or say that they give a scalar."""
  for room in ('losses', 'models'):
    package = importlib.import_module(f'step_jax.{room}')
    for info in pkgutil.iter_modules(package.__path__, f'step_jax.{room}.'):
      module = importlib.import_module(info.name)
      for name, member in vars(module).items():
        if inspect.isfunction(member) and member.__module__ == info.name and name[0] != '_':
          doc = member.__doc__
          assert '[' in doc or 'scalar' in doc or 'kernel' in doc, f'{info.name}.{name}'
