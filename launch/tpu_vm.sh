#!/usr/bin/env bash
# Manages Cloud TPU VMs, with all hosts of a slice; see README.md. Implemented in tpu_vm.py.
# Usage: launch/tpu_vm.sh create|setup|copy|run|logs|status|resume|stop|delete --name NAME ...
set -euo pipefail
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
source "$launch/environment.sh"
python=$(find_python) || {
  echo "tpu_vm: no Python 3.12 or newer found: install one, or set PYTHON to it" >&2
  exit 2
}
exec "$python" "$launch/tpu_vm.py" "$@"
