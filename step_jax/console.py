"""What the command `step-jax` starts: the command line, or one line where packages are missing."""

import sys


def main() -> int:
  """Runs `step_jax.cli.main`; returns the exit status."""
  try:
    from step_jax import cli

    return cli.main()
  except ImportError as error:  # Of a package that is missing, or so old that it lacks a name.
    if (error.name or '').startswith('step_jax'):
      raise
    print(f'step-jax: {error}: run `pip install -e .` in the checkout', file=sys.stderr)
    return 2
