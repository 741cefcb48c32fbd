#!/usr/bin/env bash
# From nothing but Python to a trained model and a report: makes .venv, installs, and runs all four
# stages on synthetic pictures. Minutes on a laptop CPU.
# Usage: launch/quickstart.sh [--workdir DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment ""
exec .venv/bin/step-jax quickstart "$@"
