"""The command line with this method: `python -m mosaic VERB`."""

import sys

from step_jax import cli

sys.exit(cli.main())
