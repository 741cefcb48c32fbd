#!/usr/bin/env bash
# Starts the run of one host in the background, reports its state, and stops it. tpu_vm.py calls
# this on every host of a slice. The checkout is code/; the same folder has venv/ and run/, with
#   lock     held by the run and its child processes: the run is alive exactly while it is held
#   id       id of the run: another start with the same id does nothing
#   log      log of the run; log.1 is that of the previous run
#   pid      process id; exit: exit status; stopped: exists if the run was stopped
#
# Usage: run_host.sh adopt REVISION | start ID COMMAND [ARGUMENT ...] | state | log LINES [follow]
#        | stop SECONDS
# Exit status: 2 wrong usage, 10 a run is alive, 11 not set up or no run, 12 start or stop failed.
# 255 is not used, because gcloud treats it as a dropped connection and repeats the command.
set -euo pipefail

fail() {
  echo "run_host: $2" >&2
  exit "$1"
}

# Prints the content of a file in run/, if it exists.
content() {
  [[ ! -e run/$1 ]] || echo "$(<"run/$1")"
}

# Writes a file in run/ atomically.
write() {
  printf '%s\n' "$2" >"run/$1.new"
  mv -f "run/$1.new" "run/$1"
}

alive() {
  ! flock --nonblock 9 9>>run/lock
}

# Replaces code/ by the new checkout in code.new/, unless a run is alive.
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
  local _
  [[ -e venv/installed ]] || fail 11 "nothing is set up here: call setup"
  # gcloud repeats this command after a dropped connection, perhaps after the run has ended.
  [[ $(content id) != "$1" ]] || return 0
  exec 9>>run/lock
  flock --wait 2 9 || fail 10 "a run is alive"
  rm -f run/exit run/pid run/stopped
  [[ ! -e run/log ]] || mv -f run/log run/log.1
  setsid "$BASH" code/launch/run_host.sh supervise "$@" </dev/null >run/log 2>&1 &
  for _ in {1..200}; do
    [[ ! -e run/pid ]] || return 0
    sleep 0.05
  done
  fail 12 "the run did not start: $(tail -n 1 run/log)"
}

# Waits for the command and writes its exit status; has its own session, which stop does not kill.
supervise() {
  local id=$1 status=0
  shift
  write id "$id"
  echo "== $(date -Is) $(hostname) run $id, code $(content revision): ${*@Q}"
  setsid --wait "$BASH" code/launch/run_host.sh lead "$@" || status=$?
  echo "== $(date -Is) run $id ended with status $status"
  write exit "$status"
}

# Replaces this process by the command, as the leader of its session.
lead() {
  write pid "$$"
  export PATH="$PWD/venv/bin:$PATH" PYTHONUNBUFFERED=1
  cd code
  exec "$@"
}

# Prints one line, separated by tabs: state of the run, its id, its exit status, whether the host is
# set up, revision of its code, last line of the log.
state() {
  local word=none id last ready=no
  id=$(content id)
  if alive; then
    word=alive
  elif [[ -e run/exit ]]; then
    word=ended
    [[ ! -e run/stopped ]] || word=stopped
  elif [[ -n $id ]]; then
    word=lost
  fi
  [[ ! -e venv/installed ]] || ready=yes
  # Progress bars separate their lines by carriage returns.
  last=$(tail -n 1 run/log 2>/dev/null) || true
  last=${last##*$'\r'}
  printf '%s\t' "$word" "$id" "$(content exit)" "$ready" "$(content revision)"
  echo "${last//$'\t'/ }"
}

log() {
  [[ -e run/log ]] || fail 11 "no run has been started here"
  [[ ${2:-} == follow ]] || exec tail --lines="$1" run/log
  tail --lines="$1" --follow run/log &
  # Until the run ends, or the reader is gone.
  while alive && kill -0 $! 2>/dev/null; do
    sleep 0.2
  done
  sleep 0.2
  kill $! 2>/dev/null || true
}

# Usage: over_within SECONDS. Waits until the run ends; fails if it is still alive after SECONDS.
over_within() {
  local deadline=$((SECONDS + $1))
  while alive; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

stop() {
  local pid
  if ! alive; then
    echo "no run was alive"
    return
  fi
  pid=$(content pid)
  write stopped "$pid"
  kill -TERM -- "-$pid" 2>/dev/null || true
  if over_within "$1"; then
    echo "ended with status $(content exit)"
    return
  fi
  kill -KILL -- "-$pid" 2>/dev/null || true
  over_within 10 || fail 12 "processes of the run outside of its session $pid are still alive"
  echo "killed: not saved within $1 s"
}

main() {
  cd "${BASH_SOURCE[0]%/*}/../.."
  [[ -d run ]] || mkdir run
  case ${1:-} in
    adopt | start | supervise | lead | state | log | stop) "$@" ;;
    *) fail 2 "unknown verb: ${1:-}" ;;
  esac
}

main "$@"
