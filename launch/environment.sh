# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: makes .venv with this checkout installed, once.
# Usage: source launch/environment.sh EXTRAS

make_environment() {
  local extras=$1 stamp=".venv/.installed-$1"
  if [[ -e $stamp && $stamp -nt setup.py ]]; then
    return
  fi
  local python
  python=$(find_python) || {
    echo "No Python 3.11 or newer found: install one, or set PYTHON to it." >&2
    exit 2
  }
  echo "Making .venv with $($python --version) …"
  [[ -x .venv/bin/python ]] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"
  touch "$stamp"
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.12 python3.11 python3.13 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}
