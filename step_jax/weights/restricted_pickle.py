"""Unpickling that runs nothing from the file and builds only what a table of names allows.

A pickle is a program for a small stack machine. Two of its powers are taken away here: the names
it may ask for are those of a table given by the caller, everything else is refused by name; and
what it gets for a name is never the real function or class, but an inert stand-in that notes the
arguments. So the worst a hostile file can do is to describe tensors that do not exist, and whoever
turns the notes into arrays checks them against the file's size.
"""

from collections.abc import Callable, Mapping
import pickle
import pickletools
from typing import Any, BinaryIO

from step_jax.errors import WeightsError, shown

_PUT = ('PUT', 'BINPUT', 'LONG_BINPUT')
_GROW = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD')
# The longest pickle of our nets, Inception's, takes some 70 thousand.
_MOST_WORK = 1_000_000


class Maker:
  """What a pickle gets in place of a function or class: it can be called, and nothing else.

  Python functions and classes are not handed out themselves, since the BUILD instruction could
  set attributes on them that outlive the file.
  """

  __slots__ = ('_make',)

  def __init__(self, make: Callable[..., Any]):
    self._make = make

  def __call__(self, *args: Any) -> Any:
    return self._make(*args)

  def __setstate__(self, state: Any) -> None:
    raise TypeError('a name from the table has no state')


class Record(dict):
  """Stand-in for `collections.OrderedDict`, without the attributes that a pickle may hang on it.

  It takes its pairs out of the list that it is given: a pickle may give one list again and again,
  and copies would cost memory out of proportion.
  """

  __slots__ = ()

  def __init__(self, *pairs: Any):
    super().__init__()
    for given in pairs:
      if type(given) is not list:
        raise TypeError('an OrderedDict of no list')
      self.update(given)
      given.clear()

  def __setstate__(self, state: Any) -> None:
    """Drops the state: PyTorch keeps module versions there."""


ORDERED_DICT = {('collections', 'OrderedDict'): Maker(Record)}


class _Unpickler(pickle.Unpickler):
  def __init__(self, file, names, persistent, where):
    super().__init__(file, encoding='latin1')
    self._names, self._persistent, self._where = names, persistent, where

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in self._names:
      raise WeightsError(
        f'{self._where} was refused: its pickle asks for '
        f'{shown(f"{module}.{name}"[:200])}, which weights do not need; '
        'nothing was run; take the file from its publisher'
      )
    return self._names[module, name]

  def persistent_load(self, key: Any) -> Any:
    if self._persistent is None:
      raise ValueError('a reference to something outside of the pickle')
    return self._persistent(key)


def load(
  file: BinaryIO,
  names: Mapping[tuple[str, str], Any],
  where: str,
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Reads one pickle from the place where `file` stands, and leaves `file` behind it.

  Args:
    file: seekable binary file.
    names: (module, name) -> stand-in; all that the pickle may ask for.
    where: name of the file, for messages.
    persistent: what to make of a persistent id; none are expected by default.

  Raises:
    WeightsError: a name outside of the table, or a stream that is damaged or no pickle.
  """
  try:
    _check_instructions(file)
    return _Unpickler(file, names, persistent, where).load()
  except WeightsError:
    raise
  except Exception as error:  # A hostile stream can make the machine fail in any way.
    raise WeightsError(
      f'{where} is damaged or not what its first bytes say ({type(error).__name__} in its pickle);'
      ' download or save it again'
    ) from error


def _check_instructions(file: BinaryIO) -> None:
  """Walks over one pickle without running it, and refuses what would cost memory out of proportion.

  The machine's memo is an array that grows to the largest index asked for, so one instruction of
  five bytes can claim gigabytes; a true pickler counts up from 0. Extension codes are looked up in
  a registry of the process, past the table of names. Tuples in tuples, each there twice, are few
  instructions and take for ever to hash, as keys; a million of them inside each other overflow the
  interpreter's stack, and end the process.
  """
  start = file.tell()
  work = _Work()
  for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
    if opcode.name in _PUT and argument > count:
      raise ValueError('memo index')
    if opcode.name.startswith('EXT'):
      raise ValueError('extension code')
    work.step(opcode, argument)
  file.seek(start)


class _Work:
  """Adds up how many things an unpickler will look at, those inside of tuples anew each time.

  A stack like the unpickler's, but in place of each thing stands how many there are in it.
  """

  def __init__(self):
    self._stack: list[int] = []
    self._marks: list[int] = []
    self._memo: dict[int, int] = {}
    self._total = 0

  def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
    """Follows one instruction.

    Raises:
      ValueError: it is one too many, or takes what is not there.
    """
    stack, name = self._stack, opcode.name
    takes, gives = opcode.stack_before, opcode.stack_after
    if name == 'MARK' or (name == 'POP' and self._marks and self._marks[-1] == len(stack)):
      self._marks.append(len(stack)) if name == 'MARK' else self._marks.pop()
      return
    if pickletools.markobject in takes:
      first = self._marks.pop() - takes.index(pickletools.markobject)
    else:
      first = len(stack) - len(takes)
    if first < 0:
      raise ValueError('stack')
    taken = stack[first:]
    del stack[first:]
    weight = 1 + sum(taken)
    self._total += weight
    if self._total > _MOST_WORK:
      raise ValueError('too much work')
    if name in _PUT or name == 'MEMOIZE':
      stack += taken
      self._memo[len(self._memo) if name == 'MEMOIZE' else argument] = stack[-1]
    elif name in ('GET', 'BINGET', 'LONG_BINGET'):
      stack.append(self._memo[argument])
    elif name == 'DUP':
      stack += taken * 2
    elif name in _GROW:  # Lists and dicts cannot be keys; so nobody looks into them again.
      stack.append(taken[0])
    else:
      stack += [weight] * len(gives)
