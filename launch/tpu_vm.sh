#!/usr/bin/env bash
# Cloud TPU VMs, all hosts of a slice: creates, sets up, runs, resumes, deletes. README.md tells all.
# Usage: launch/tpu_vm.sh create|setup|copy|run|logs|status|resume|stop|delete --name NAME ...
# The work is done in tpu_vm.py: it asks many hosts at once, each within a time limit.
set -euo pipefail
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=/dev/null
source "$launch/environment.sh"
python=$(find_python) || {
  echo "tpu_vm: no Python 3.12 or newer found: install one, or set PYTHON to it" >&2
  exit 2
}
exec "$python" "$launch/tpu_vm.py" "$@"
