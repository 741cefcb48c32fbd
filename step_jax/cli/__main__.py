"""`python -m step_jax.cli VERB`."""

import sys

from step_jax import cli

if __name__ == '__main__':
  sys.exit(cli.main())
