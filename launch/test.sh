#!/usr/bin/env bash
# Runs all tests, in an environment that is created if it is missing.
# Usage: launch/test.sh [--long] [PYTEST ARGUMENTS]
# --long adds tests that take many minutes, such as the soak test of killed runs.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment test
exec .venv/bin/python -m pytest "$@"
