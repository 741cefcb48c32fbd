"""The command line with this method: `python -m mosaic VERB`."""

import sys

import mosaic
from step_jax import cli, methods

methods.register(mosaic.METHOD)
sys.exit(cli.main())
