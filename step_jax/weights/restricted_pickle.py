"""Restricted unpickling: executes no code from the file and allows only names in a table.

A pickle is a program for a small stack machine. It is restricted in two ways. It may only request
names in a table given by the caller; any other name is an error. And a name is never resolved to
the real function or class, but to an inert stand-in that records the arguments. The worst that a
hostile file can do is to describe tensors that do not exist; the code that turns these descriptions
into arrays checks them against the size of the file.
"""

from collections.abc import Callable, Mapping
import pickle
import pickletools
from typing import Any, BinaryIO

from step_jax.errors import WeightsError, shown

_PUT = ('PUT', 'BINPUT', 'LONG_BINPUT')
_GROW = ('APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS', 'BUILD')
# The longest pickle of our networks, that of Inception, needs about 70 thousand.
_MOST_WORK = 1_000_000


class Maker:
  """Stand-in for a function or class that can only be called.

  Real functions and classes are not used, because the BUILD instruction could set attributes on
  them that remain after reading the file.
  """

  __slots__ = ('_make',)

  def __init__(self, make: Callable[..., Any]):
    self._make = make

  def __call__(self, *args: Any) -> Any:
    return self._make(*args)

  def __setstate__(self, state: Any) -> None:
    raise TypeError('a name from the table has no state')


class Record(dict):
  """Stand-in for `collections.OrderedDict` without attributes.

  It removes the pairs from the list that it gets. Otherwise, a pickle that passes one list many
  times would need much memory for copies.
  """

  __slots__ = ()

  def __init__(self, *pairs: Any):
    super().__init__()
    for items in pairs:
      if type(items) is not list:
        raise TypeError('an OrderedDict of no list')
      self.update(items)
      items.clear()

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
  """Reads one pickle from the current position of `file`, and leaves the position after it.

  Args:
    file: seekable binary file.
    names: (module, name) -> stand-in, for all allowed names.
    where: name of the file, for messages.
    persistent: resolves persistent ids; None: there must be none.

  Raises:
    WeightsError: the pickle requests another name, is damaged, or is not a pickle.
  """
  try:
    _check_instructions(file)
    return _Unpickler(file, names, persistent, where).load()
  except WeightsError:
    raise
  except Exception as error:  # A hostile stream may cause any exception.
    raise WeightsError(
      f'{where} is damaged or not what its first bytes say ({type(error).__name__} in its pickle);'
      ' download or save it again'
    ) from error


def _check_instructions(file: BinaryIO) -> None:
  """Checks the instructions of a pickle before running it, and refuses excessive use of memory.

  The memo of the machine is an array that grows to the largest index, so an instruction of five
  bytes can allocate gigabytes; real pickles count up from 0. Extension codes are looked up in a
  registry of the process, which bypasses the table of names. Nested tuples, each used twice, are
  few instructions but take forever to hash as keys; a million nested tuples overflow the stack of
  the interpreter and end the process.
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
  """Counts the objects that an unpickler visits, including those inside tuples every time.

  It has a stack like that of the unpickler, with the number of objects inside each object.
  """

  def __init__(self):
    self._stack: list[int] = []
    self._marks: list[int] = []
    self._memo: dict[int, int] = {}
    self._total = 0

  def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
    """Simulates one instruction.

    Raises:
      ValueError: there is too much work, or the stack is empty.
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
    popped = stack[first:]
    del stack[first:]
    weight = 1 + sum(popped)
    self._total += weight
    if self._total > _MOST_WORK:
      raise ValueError('too much work')
    if name in _PUT or name == 'MEMOIZE':
      stack += popped
      self._memo[len(self._memo) if name == 'MEMOIZE' else argument] = stack[-1]
    elif name in ('GET', 'BINGET', 'LONG_BINGET'):
      stack.append(self._memo[argument])
    elif name == 'DUP':
      stack += popped * 2
    elif name in _GROW:  # Lists and dicts cannot be keys, so they are not visited again.
      stack.append(popped[0])
    else:
      stack += [weight] * len(gives)
