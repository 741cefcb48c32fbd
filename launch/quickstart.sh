#!/usr/bin/env bash
# Installs step_jax into .venv, trains all four stages on synthetic images, and writes a report.
# Needs only Python, and takes minutes on a laptop CPU.
# Usage: launch/quickstart.sh [--workdir DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment ""
exec .venv/bin/step-jax quickstart "$@"
