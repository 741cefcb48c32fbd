#!/usr/bin/env bash
# Every test, in an environment that is made if it is missing.
# Usage: launch/test.sh [--long] [PYTEST ARGUMENTS]
# --long adds the tests that take many minutes, as the soak of killed runs.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment test
exec .venv/bin/python -m pytest "$@"
