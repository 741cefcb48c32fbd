#!/usr/bin/env bash
# Sets up a host, and skips finished steps: Python 3.12 or 3.13 (images of Cloud TPU VMs have 3.10),
# an environment with this checkout at pinned versions, and a check of chips and bucket.
#
# Usage: launch/setup_host.sh [install|check] [--venv DIR] [--extras NAME] [--constraints FILE]
#          [--hosts N] [--bucket gs://NAME]
#   install, check   only this step (default: both)
#   --venv           environment to create (default: .venv)
#   --extras         extras of setup.py: tpu, cuda12 or cuda13 (default: tpu)
#   --constraints    pinned versions (default: launch/constraints.txt)
#   --hosts          number of hosts of the slice; check must run on all of them at the same time
#   --bucket         bucket to check for read and write access
# Exit status: 2 wrong usage, 3 no Python, 4 installation failed, 5 no chips, 6 no access to the
# bucket. The last line on standard error says why.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=/dev/null
source "$here/launch/environment.sh"

fail() {
  echo "setup_host: $2" >&2
  exit "$1"
}

# The newest Python (3.NEWEST) tested with the pinned versions.
NEWEST=13

python_on_path() {
  find_python "$NEWEST"
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  else
    sudo --non-interactive "$@"
  fi
}

# Each of these prints the interpreter that it installed, and nothing else.
python_from_uv() {
  local uv
  PATH="$PATH:$HOME/.local/bin"
  if ! command -v uv >/dev/null; then
    curl --location --silent --show-error --fail https://astral.sh/uv/install.sh |
      UV_NO_MODIFY_PATH=1 sh >&2 || return
  fi
  uv=$(command -v uv) || return
  "$uv" python install 3.12 >&2 && "$uv" python find 3.12
}

python_from_apt() {
  # A new host may still be updating itself: wait for its lock.
  local apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get --yes -o DPkg::Lock::Timeout=300)
  {
    as_root add-apt-repository --yes ppa:deadsnakes/ppa &&
      "${apt[@]}" update &&
      "${apt[@]}" install python3.12 python3.12-venv
  } >&2 && command -v python3.12
}

bring_python() {
  local way python
  for way in python_on_path python_from_uv python_from_apt; do
    if python=$("$way") && fits "$python" "$NEWEST"; then
      echo "$python"
      return
    fi
    echo "no Python 3.12 or 3.13: $way" >&2
  done
  fail 3 "no Python 3.12 or 3.13, and neither uv nor apt brought one: install it and set PYTHON"
}

# Digest of setup.py, constraints and Python; if it changes, the environment is installed again.
fingerprint() {
  {
    cat "$here/setup.py" "$constraints"
    echo "$here $extras"
    "$venv/bin/python" --version
  } | sha256sum
}

install() {
  local python
  [[ -r $constraints ]] || fail 2 "cannot read the constraints $constraints"
  if ! fits "$venv/bin/python" "$NEWEST"; then
    python=$(bring_python) || exit
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail 4 "$python could not make an environment in $venv"
  fi
  if [[ $(cat "$venv/installed" 2>/dev/null) == "$(fingerprint)" ]]; then
    echo "environment is ready: $venv"
    return
  fi
  rm -f "$venv/installed"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$constraints" --editable "${here}[$extras]" ||
    fail 4 "pip could not install .[$extras] with the versions of $constraints: see above"
  fingerprint >"$venv/installed"
  echo "environment made: $venv"
}

# Connects the hosts as in training, and counts chips.
look_at_chips() {
  timeout 300 "$venv/bin/python" - "$hosts" <<'PYTHON'
import sys

import jax

hosts = int(sys.argv[1])
if hosts > 1:
  jax.distributed.initialize()
if jax.default_backend() == 'cpu':
  sys.exit('JAX sees only the CPU')
if jax.process_count() != hosts:
  sys.exit(f'JAX sees {jax.process_count()} hosts of {hosts}')
print(f'{jax.device_count()} chips on {hosts} hosts, {jax.local_device_count()} of them here')
PYTHON
}

# Uses the library that writes checkpoints, with the permissions of this host.
look_at_bucket() {
  timeout 120 "$venv/bin/python" - "$bucket" <<'PYTHON'
import socket
import sys

import tensorstore

folder = tensorstore.KvStore.open(sys.argv[1].rstrip('/') + '/.step_jax_access/').result()
name = socket.gethostname()
folder.write(name, b'step_jax').result()
assert folder.read(name).result().value == b'step_jax'
folder.write(name, None).result()  # Deletes it.
PYTHON
}

check() {
  look_at_chips || fail 5 "no chips: is another program using them, or is a host missing? See above"
  [[ -z $bucket ]] || look_at_bucket ||
    fail 6 "cannot write to $bucket: check its name; this host needs the role Storage Object Admin"
}

parse() {
  steps=(install check)
  case ${1:-} in
    install | check)
      steps=("$1")
      shift
      ;;
  esac
  while (($#)); do
    (($# > 1)) || fail 2 "argument without a value, or unknown: $1"
    case $1 in
      --venv) venv=$2 ;;
      --extras) extras=$2 ;;
      --constraints) constraints=$2 ;;
      --hosts) hosts=$2 ;;
      --bucket) bucket=$2 ;;
      *) fail 2 "unknown argument: $1" ;;
    esac
    shift 2
  done
}

main() {
  local step steps venv=.venv extras=tpu constraints=$here/launch/constraints.txt hosts=1 bucket=
  parse "$@"
  for step in "${steps[@]}"; do
    "$step"
  done
}

main "$@"
