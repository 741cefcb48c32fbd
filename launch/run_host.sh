#!/usr/bin/env bash
# The run of one host: starts it in the background, tells how it is, stops it. tpu_vm.py calls this
# on every host of a slice. Beside code/, which is this checkout, stand venv/ and run/, with
#   lock     held by the run and all that it started: a run is alive exactly while it is held
#   id       of the run: a start with the same id is a repetition, not a second run
#   log      of the run, log.1 of the one before; command, pid and, once it has ended, exit
#
# Usage: run_host.sh adopt REVISION | start ID COMMAND [ARGUMENT ...] | state | log LINES [follow]
#        | stop SECONDS
# Exit status: 2 wrong usage, 10 a run is alive, 11 nothing is there yet, 12 start or stop failed.
# None is 255: gcloud takes that for a dropped connection, and gives the command again.
set -euo pipefail

fail() {
  echo "run_host: $2" >&2
  exit "$1"
}

# The content of a file of run/, or of nothing.
content() {
  cat "run/$1" 2>/dev/null || true
}

# Whole or not at all, whenever the host dies.
write() {
  printf '%s\n' "$2" >"run/$1.new"
  mv -f "run/$1.new" "run/$1"
}

alive() {
  ! flock --nonblock run/lock true
}

# Called in code.new/, just unpacked: puts it in the place of code/, unless a run uses that.
adopt() {
  if alive; then
    rm -rf code.new
    fail 10 "a run is alive"
  fi
  rm -rf code.old
  [[ ! -e code ]] || mv code code.old
  mv code.new code
  rm -rf code.old
  write revision "$1"
}

start() {
  local id=$1 _
  [[ -e venv/installed ]] || fail 11 "nothing is set up here: call setup"
  exec 9>>run/lock
  if ! flock --wait 2 9; then
    [[ $(content id) == "$id" ]] || fail 10 "a run is alive"
    return
  fi
  # The command is given again when its connection drops, perhaps after the run has ended.
  [[ $(content id) != "$id" ]] || return 0
  rm -f run/exit run/pid
  [[ ! -e run/log ]] || mv -f run/log run/log.1
  setsid "$BASH" code/launch/run_host.sh supervise "$@" </dev/null >run/log 2>&1 &
  for _ in {1..100}; do
    [[ ! -e run/pid ]] || return 0
    sleep 0.05
  done
  fail 12 "the run did not start: $(tail -n 1 run/log)"
}

# The leader of the run's own session: runs the command and writes its exit status.
supervise() {
  local id=$1 root=$PWD child status=0
  shift
  # Stop signals the whole session; this shell outlives that, and the command takes it as it will.
  trap : TERM
  write id "$id"
  write command "${*@Q}"
  write pid "$$"
  echo "== $(date -Is) $(hostname) run $id, code $(content revision): ${*@Q}"
  export PATH="$root/venv/bin:$PATH" PYTHONUNBUFFERED=1
  cd code
  "$@" &
  child=$!
  # A signal ends a wait, not the child.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true
  done
  wait "$child" || status=$?
  cd "$root"
  echo "== $(date -Is) run $id ended with status $status"
  write exit "$status"
}

# One line, fields parted by tabs: what the run does, its id, exit status, set up or not, last line.
state() {
  local word=none id last ready=no
  id=$(content id)
  if alive; then
    word=alive
  elif [[ -e run/exit ]]; then
    word=ended
  elif [[ -n $id ]]; then
    word=lost
  fi
  [[ ! -e venv/installed ]] || ready=yes
  # Progress bars part their lines by carriage returns.
  last=$(tail -n 1 run/log 2>/dev/null | tr '\r\t' '\n ' | tail -n 1)
  printf '%s\t%s\t%s\t%s\t%s\n' "$word" "$id" "$(content exit)" "$ready" "$last"
}

log() {
  [[ -e run/log ]] || fail 11 "no run has been started here"
  if [[ ${2:-} == follow ]] && alive; then
    exec tail --lines="$1" --follow --pid="$(content pid)" run/log
  fi
  exec tail --lines="$1" run/log
}

stop() {
  local pid deadline=$((SECONDS + $1))
  if ! alive; then
    echo "no run was alive"
    return
  fi
  pid=$(content pid)
  kill -TERM -- "-$pid" 2>/dev/null || true
  while alive && ((SECONDS < deadline)); do
    sleep 0.1
  done
  if alive; then
    kill -KILL -- "-$pid" 2>/dev/null || true
    sleep 0.5
    ! alive || fail 12 "processes of the run are left, outside of its session $pid"
    [[ -e run/exit ]] || write exit 137
    echo "killed: not saved within $1 s"
    return
  fi
  echo "ended with status $(content exit)"
}

main() {
  cd "$(dirname "${BASH_SOURCE[0]}")/../.."
  mkdir -p run
  case ${1:-} in
    adopt | start | supervise | state | log | stop) "$@" ;;
    *) fail 2 "unknown verb: ${1:-}" ;;
  esac
}

main "$@"
