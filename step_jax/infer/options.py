"""Method-specific options: flags of a command, and the arguments that they set."""

from collections.abc import Mapping, Sequence
import pkgutil
from typing import Any

from step_jax import files, methods
from step_jax.errors import ConfigError, DataError, shown

# Options whose values are files, each with the file of one image.
OwnFiles = Sequence[tuple[methods.Option, files.Path]]
# Command -> functions whose options it accepts.
_FUNCTIONS = {
  'translate': ('translate', 'draw', 'encode', 'interpolate'),
  'codes': ('encode', 'codes'),
}


def flag(option: methods.Option, command: str) -> str:
  """Flag of an option in a command, without the leading dashes."""
  return f'style-{option.name}' if (option.of, command) == ('encode', 'translate') else option.name


def flags(command: str) -> dict[str, dict[str, methods.Option]]:
  """Flags of a command: name -> method that has it -> option."""
  by_flag: dict[str, dict[str, methods.Option]] = {}
  for method in methods.METHODS.values():
    for option in method.options:
      if option.of in _FUNCTIONS[command]:
        by_flag.setdefault(flag(option, command), {})[method.name] = option
  return by_flag


class Given:
  """Method-specific options given to a command.

  Args:
    method: name of the method.
    command: `translate` or `codes`.
    values: flag, with underscores -> value.

  Raises:
    ConfigError: the method does not have one of the options.
  """

  def __init__(self, method: str, command: str, values: Mapping[str, Any]):
    self._command = command
    by_name = {name.replace('-', '_'): options for name, options in flags(command).items()}
    self._values: list[tuple[methods.Option, Any]] = []
    for name, value in values.items():
      options = by_name.get(name, {})
      if method not in options:
        others = f', but of {", ".join(options)}' if options else ''
        raise ConfigError(f'--{name.replace("_", "-")}: is not an option of {method} runs{others}')
      self._values.append((options[method], value))

  def refuse(self, function: str, why: str) -> None:
    """Raises a ConfigError if an option of the function is given."""
    for option, _ in self._values:
      if option.of == function:
        raise ConfigError(f'--{flag(option, self._command)}: {why}')

  def of(self, function: str) -> dict[str, Any]:
    """Arguments of a function that are shared by all images."""
    return {
      option.argument: value
      for option, value in self._values
      if option.of == function and not option.read
    }

  def files_of(self, function: str, images: Sequence[files.Path]) -> list[OwnFiles]:
    """Files of each image, from those options of a function whose values are files.

    Raises:
      UserError: the number of files differs from that of images, or a folder lacks one.
    """
    of_options = [
      [(option, path) for path in _matched(f'--{flag(option, self._command)}', value, images)]
      for option, value in self._values
      if option.of == function and option.read
    ]
    return [[of_option[i] for of_option in of_options] for i in range(len(images))]


def read(run: methods.Encoder, own_files: OwnFiles, image: Any) -> dict[str, Any]:
  """Reads the files of an image as arguments."""
  return {
    option.argument: pkgutil.resolve_name(option.read)(run, path, image)
    for option, path in own_files
  }


def _matched(name: str, values: Sequence[str], images: Sequence[files.Path]) -> list[files.Path]:
  paths = [files.path(value) for value in values]
  if len(paths) == 1 and paths[0].is_dir():
    by_stem: dict[str, list[files.Path]] = {}
    for path in paths[0].iterdir():
      if not path.name.startswith('.'):
        by_stem.setdefault(path.stem, []).append(path)
    return [_only(name, paths[0], by_stem.get(image.stem, []), image) for image in images]
  if len(paths) != len(images):
    raise ConfigError(
      f'{name}: got {len(paths)} files for {len(images)} images: give one for each, or a folder'
    )
  return paths


def _only(
  name: str, folder: files.Path, paths: Sequence[files.Path], image: files.Path
) -> files.Path:
  if len(paths) != 1:
    count = f'{len(paths)} files' if paths else 'no file'
    raise DataError(f'{name} {shown(str(folder))}: has {count} named {shown(image.stem)}.*')
  return paths[0]
