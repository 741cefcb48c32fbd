# shellcheck shell=bash
# Sourced by the other scripts: finds Python 3.12 or newer, and installs this checkout into .venv.
# Usage: source launch/environment.sh; make_environment EXTRAS

# Usage: fits PYTHON [NEWEST]. Whether PYTHON runs, is 3.12 or newer and at most 3.NEWEST, and can
# create an environment: on Debian, venv is a separate package, and pip needs ssl and zlib.
fits() {
  local check='import ensurepip, ssl, sys, venv, zlib
sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, int(sys.argv[1])))'
  "$1" -c "$check" "${2:-99}" </dev/null >/dev/null 2>&1
}

# Candidates, best first. The shim of a version manager is on PATH but fails unless its version is
# selected, so this lists all matches on PATH, then the versions installed by pyenv.
pythons() {
  local root version
  type -aP python3.12 python3.13 python3 python || true
  for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
    for version in 3.12 3.13; do
      printf '%s\n' "$root/versions/$version".*/bin/python
    done
  done
}

# Usage: find_python [NEWEST]. Prints $PYTHON if it is set, otherwise the first candidate that fits.
find_python() {
  local candidate
  while IFS= read -r candidate; do
    if fits "$candidate" "$@"; then
      type -P "$candidate"
      return
    fi
  done < <(if [[ -n ${PYTHON:-} ]]; then echo "$PYTHON"; else pythons; fi)
  return 1
}

make_environment() {
  local extras=$1 stamp=.venv/.installed-$1 python=.venv/bin/python interpreter version source
  version=$("$python" --version 2>/dev/null) || version=
  if ! fits "$python" || ! "$python" -c 'import pip' 2>/dev/null ||
    [[ -n ${PYTHON:-} && $version != "$("$PYTHON" --version 2>/dev/null)" ]]; then
    interpreter=$(find_python) || {
      echo "${PYTHON:-PATH}: no Python 3.12 or newer with venv: install one, or set PYTHON to it" >&2
      exit 2
    }
    echo "Making .venv with $("$interpreter" --version)${version:+ in place of that with $version} …"
    "$interpreter" -m venv --clear .venv
  fi
  # Install again if the requirements have changed or the checkout was moved.
  source="$PWD $(cksum <setup.py)"
  [[ $(cat "$stamp" 2>/dev/null) != "$source" ]] || return 0
  echo "Installing step_jax into .venv …"
  # -qq shows only errors, because warnings are about the setup of pip on this machine.
  "$python" -m pip install -qq --disable-pip-version-check --editable ".${extras:+[$extras]}" || {
    echo "pip could not install .${extras:+[$extras]} into .venv: see above, then repeat the command." >&2
    exit 2
  }
  echo "$source" >"$stamp"
}
