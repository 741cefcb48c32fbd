"""Manages Cloud TPU VMs with all hosts of a slice: `launch/tpu_vm.sh VERB --name NAME`.

See README.md. This uses only Python's standard library. It is not a shell script, because verbs
call many hosts in parallel, each with a time limit, keep a state file and quote commands.

Exit statuses are those of `Exit`. An error is one line on standard error that says what to do. The
same call can be repeated to continue.
"""

import argparse
from collections.abc import Iterable, Sequence
import contextlib
import os
import pathlib
import secrets
import shlex
import sys
import tarfile
import time

from tpu_node import (
  BARE,
  BUSY,
  ENVIRONMENT,
  HOST,
  IDLE,
  RUN_HOST,
  SECONDS,
  SETUP_HOST,
  SWITCHES,
  TEXTS,
  Condition,
  Exit,
  HostState,
  LaunchError,
  Node,
  Result,
  load,
  numbers,
  replace_file,
)

# In other conditions, `resume` recreates the node.
USABLE = (Condition.READY, Condition.WAITING, Condition.STOPPED)
ROOT = pathlib.Path(__file__).resolve().parent.parent


def workers_of(states: Sequence[HostState], *words: str) -> list[int]:
  """Hosts in one of the given states."""
  return [worker for worker, state in enumerate(states) if state.word in words]


def reachable(node: Node, assume: str, may_run: bool = False) -> list[HostState]:
  """States of all hosts; raises if one is unreachable, or has a run while `may_run` is false."""
  states = node.states(assume)
  silent = workers_of(states, 'unreachable')
  results = {
    worker: Result(255 * (worker in silent), err=host.last) for worker, host in enumerate(states)
  }
  node.check('ssh', results, f'nothing was changed, repeat `{node.args.verb}`')
  busy = workers_of(states, 'alive')
  if busy and not may_run:
    remedy = '`stop` it first; `resume` starts it where it is missing'
    raise node.error(Exit.ALIVE, f'a run is alive on worker {numbers(busy)}: {remedy}')
  return states


# Code on the hosts.


def with_other_code(node: Node, states: Sequence[HostState]) -> list[int]:
  """Hosts whose code is not that of the last copy."""
  sent = node.state.revision
  return [w for w, host in enumerate(states) if sent and host.revision not in ('', sent)]


def git(node: Node, *arguments: str) -> str:
  """Output of a git command on the checkout."""
  result = node.execute(('git', '-C', str(ROOT), *arguments), SECONDS['gcloud'])
  if result.status:
    raise LaunchError(Exit.USAGE, f'{ROOT}: {result.reason}; use a git checkout')
  return result.out


def pack(node: Node) -> None:
  """Makes the archive of HEAD, or with --dirty of the working tree."""
  changes = git(node, 'status', '--porcelain').splitlines()
  head = git(node, 'rev-parse', '--short=12', 'HEAD').strip()
  if changes and not node.args.dirty:
    which = changes[0][3:] + f' and {len(changes) - 1} more' * (len(changes) > 1)
    remedy = 'commit them, or send them with --dirty'
    raise LaunchError(Exit.USAGE, f'the checkout has uncommitted changes ({which}): {remedy}')

  def pack_head(path: pathlib.Path) -> None:
    git(node, 'archive', '--format=tar.gz', f'--output={path}', 'HEAD')

  def pack_files(path: pathlib.Path) -> None:
    names = git(node, 'ls-files', '-z', '--cached', '--others', '--exclude-standard').split('\0')
    with tarfile.open(path, 'w:gz') as archive:
      for name in names:
        # Tracked files may have been deleted.
        if name and os.path.lexists(ROOT / name):
          archive.add(ROOT / name, name, recursive=False)

  archive = node.state.file('.tar.gz')
  if node.dry_run:
    pack_head(archive)
  else:
    replace_file(archive, pack_files if changes else pack_head)
  node.state.revision = f'{head}-dirty' if changes else head
  node.save()


def send(node: Node, workers: Iterable[int] | None = None) -> None:
  """Sends the archive to hosts, and replaces their code by it."""
  archive, parcel = node.state.file('.tar.gz'), f'{HOST}.tar.gz'
  again = f'repeat `{node.args.verb}`'
  sent = node.everywhere(lambda worker: node.scp(worker, archive, parcel), workers)
  node.check('copy', sent, again)
  script = (
    f'mkdir -p {HOST} && cd {HOST} && rm -rf code.new && mkdir code.new && '
    f'tar -xzf ../{parcel} -C code.new && bash code.new/launch/run_host.sh adopt "$1"'
  )
  command = ['bash', '-c', script, 'copy', node.state.revision]
  unpacked = node.everywhere(lambda worker: node.ssh(worker, command), workers)
  node.check('copy', unpacked, again)
  node.say(f'code {node.state.revision} is on the hosts')


# Verbs.


def create(node: Node) -> None:
  """Creates the node and waits until it is ready."""
  look = node.look()
  if look.condition is not Condition.GONE and not node.state.made:
    raise node.failure('create', f'it already exists: {look.text}')
  if look.condition in USABLE:
    node.say(f'already requested: {look.text}')
  else:
    node.request()
  node.wait_ready()


def setup(node: Node) -> None:
  """Installs Python and the environment on every host, and checks the chips."""
  node.require_ready()
  bare = workers_of(reachable(node, BARE), 'bare')
  if bare:
    has_archive = node.state.file('.tar.gz').exists()
    if not has_archive:
      pack(node)
    send(node, bare if has_archive else None)
  again = 'repeat `setup`, which skips finished steps'
  node.say('installing on every host: takes some minutes the first time')
  install = ['bash', SETUP_HOST, 'install', '--venv', f'{HOST}/venv']
  installed = node.everywhere(lambda worker: node.ssh(worker, install, 'install'))
  node.check('setup', installed, again)
  # On all hosts at the same time, because the hosts of a slice initialise their chips together.
  look = ['bash', SETUP_HOST, 'check', '--venv', f'{HOST}/venv']
  look += ['--hosts', str(node.state.hosts or 1)]
  look += ['--bucket', node.state.bucket] if node.state.bucket else []
  checked = node.everywhere(lambda worker: node.ssh(worker, look, 'check'))
  node.check('setup', checked, again)
  node.say(f'set up: {checked[0].out.strip()}')


def copy(node: Node) -> None:
  """Sends the checkout to every host."""
  node.require_ready()
  reachable(node, IDLE)
  pack(node)
  send(node)


def run(node: Node) -> None:
  """Starts a command on every host, in the background: run -- COMMAND."""
  if not node.args.rest:
    raise LaunchError(Exit.USAGE, 'run needs a command: give it after --')
  node.require_ready()
  states = reachable(node, IDLE)
  if bare := [worker for worker, host in enumerate(states) if host.ready != 'yes']:
    raise node.error(Exit.HOSTS, f'worker {numbers(bare)} is not set up: `setup`, then `run`')
  if other := with_other_code(node, states):
    raise node.error(Exit.HOSTS, f'worker {numbers(other)} has old code: `copy`, then `run`')
  node.state.command = node.args.rest
  start(node)


def start(node: Node, missing: Sequence[int] = ()) -> None:
  """Starts the last command as a new run, or starts the last run on hosts that lack it."""
  state = node.state
  if not missing:
    state.run = f'{time.strftime("%Y%m%d-%H%M%S")}-{secrets.token_hex(2)}'
    # Save before anything starts, so that `resume` always knows the run.
    node.save()
  bucket = ['env', f'STEP_JAX_BUCKET={state.bucket}'] if state.bucket else []
  command = ['bash', RUN_HOST, 'start', state.run, *bucket, *state.command]
  started = node.everywhere(lambda worker: node.ssh(worker, command), missing or None)
  node.check('run', started, '`resume` starts it where it is missing, `stop` ends it')
  what = f'run {state.run} of code {state.revision}'
  node.say(f'{what} is alive on every host: {shlex.join(state.command)}')


def resume(node: Node) -> None:
  """Repeats the last command after a preemption or a stop, on a new node if necessary."""
  state = node.state
  if not state.command:
    raise node.error(Exit.USAGE, 'no command has been run: `create`, `setup`, `run -- COMMAND`')
  look = node.look()
  if look.condition not in USABLE:
    node.say(f'recreating the node: {look.text}')
    node.request()
  if look.condition is Condition.READY:
    state.hosts = look.hosts
  else:
    node.wait_ready()
  states = reachable(node, BARE, may_run=True)
  if not all(host.ready == 'yes' for host in states):
    setup(node)
    states = reachable(node, IDLE, may_run=True)
  began = [host for host in states if host.run == state.run]
  missing = [worker for worker, host in enumerate(states) if host.run != state.run]
  if not missing and all(host.word == 'alive' for host in states):
    node.say(f'run {state.run} is alive on every host')
  elif not missing and all(host.word == 'ended' and host.exit == '0' for host in states):
    node.say(f'run {state.run} has ended successfully on every host: nothing to resume')
  elif missing and began and all(host.word == 'alive' for host in began):
    start(node, missing)
  else:
    # If one host of a run has ended, the others cannot continue without it.
    if workers_of(states, 'alive'):
      stop(node)
    if other := with_other_code(node, states):
      send(node, other)
    start(node)


def status(node: Node) -> None:
  """Shows the state of the node, and of the run on every host."""
  look, state = node.look(), node.state
  node.say(f'{state.name}: {look.text}; {state.type} in {state.zone} of {state.project}')
  if look.condition is not Condition.READY:
    raise node.unready(look)
  state.hosts = look.hosts
  states = node.states(IDLE)
  rows = [('worker', 'run', 'exit', 'id', 'last line')]
  rows += [(str(w), h.word, h.exit, h.run, h.last[:80]) for w, h in enumerate(states)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    node.say('  '.join(cells).rstrip())
  bad = [w for w, host in enumerate(states) if host.word == 'ended' and host.exit != '0']
  bad = sorted(bad + workers_of(states, 'lost', 'unreachable'))
  if bad:
    remedy = f'see `logs --worker {bad[0]}`; `resume` repeats the command'
    raise node.error(Exit.HOSTS, f'the run has problems on worker {numbers(bad)}: {remedy}')


def logs(node: Node) -> None:
  """Shows the log of one host, or of all hosts."""
  args = node.args
  node.require_ready()
  command = ['bash', RUN_HOST, 'log', str(args.lines)]
  if args.worker == 'all' and not args.follow:
    shown = node.everywhere(lambda worker: node.ssh(worker, command))
    for worker, result in shown.items():
      node.say(f'== worker {worker}\n{result.out.rstrip()}')
    node.check('logs', shown, 'has it been started there? See `status`')
    return
  if not args.worker.isdecimal() or int(args.worker) >= (node.state.hosts or 1):
    what = 'a number' if args.follow else 'all or a number'
    raise LaunchError(Exit.USAGE, f'--worker takes {what} below {node.state.hosts}')
  # The user interrupts to stop following a log.
  with contextlib.suppress(*[KeyboardInterrupt] * args.follow):
    command += ['follow'] * args.follow
    result = node.ssh(int(args.worker), command, seconds=None, stream=True)
    if result.status:
      raise node.error(Exit.HOSTS, f'no log from worker {args.worker}: see above, and `status`')


def stop(node: Node) -> None:
  """Ends the run: SIGTERM, which lets training save and exit, and after --grace SIGKILL."""
  node.require_ready()
  # Hosts that do not answer may have a run.
  busy = workers_of(node.states(BUSY), 'alive', 'unreachable')
  command = ['bash', RUN_HOST, 'stop', str(node.args.grace)]
  seconds = node.args.grace + SECONDS['host']
  stopped = node.everywhere(lambda worker: node.ssh(worker, command, seconds=seconds), busy)
  node.check('stop', stopped, 'repeat `stop`')
  for worker, result in stopped.items():
    node.say(f'worker {worker}: {result.out.strip()}')
  if not busy:
    node.say('no run was alive')


def delete(node: Node) -> None:
  """Deletes the node, its queued resource and the state file."""
  state = node.state
  if not node.args.yes and not node.dry_run:
    if not sys.stdin.isatty():
      raise LaunchError(Exit.USAGE, 'cannot ask for confirmation here: give --yes to delete')
    where = f'{state.name} in {state.zone} of {state.project}'
    if input(f'Delete {where}, and all data on its disks? [y/N] ').lower() not in ('y', 'yes'):
      raise node.error(Exit.USAGE, 'was not deleted')
  node.remove()
  if not node.dry_run:
    state.file('.tar.gz').unlink(missing_ok=True)
    state.file().unlink(missing_ok=True)
  node.say(f'{state.name} is deleted and no longer billed')


VERBS = {
  verb.__name__: verb for verb in (create, setup, copy, run, logs, status, resume, stop, delete)
}


def parser() -> argparse.ArgumentParser:
  """Parser of the command line up to --."""
  statuses = ', '.join(f'{value.value} {value.name.lower()}' for value in Exit)
  main_parser = argparse.ArgumentParser(
    prog='launch/tpu_vm.sh',
    description='Manages Cloud TPU VMs with all hosts of a slice. Settings are flags, or '
    f'environment variables {ENVIRONMENT}NAME, {ENVIRONMENT}ZONE and so on; later calls need only '
    '--name.',
    epilog=f'Exit status: 0 done, {statuses}.',
    allow_abbrev=False,
  )
  verbs = main_parser.add_subparsers(dest='verb', required=True, metavar='VERB')
  for name, function in VERBS.items():
    text = function.__doc__
    verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    verb.add_argument('--name', help='name of the node')
    for field, help_ in TEXTS.items():
      verb.add_argument(f'--{field}', help=help_)
    for field, help_ in SWITCHES.items():
      verb.add_argument(f'--{field}', action='store_true', default=None, help=help_)
    verb.add_argument('--dry-run', action='store_true', help='print commands, do not run them')
    if name in ('create', 'resume'):
      verb.add_argument(
        '--wait', type=float, default=60, metavar='MINUTES', help='time limit for the node'
      )
    if name in ('create', 'resume', 'delete'):
      verb.add_argument(
        '--poll', type=float, default=15, metavar='SECONDS', help='interval between queries'
      )
    if name in ('setup', 'copy', 'resume'):
      verb.add_argument('--dirty', action='store_true', help='send uncommitted changes too')
    if name in ('stop', 'resume'):
      verb.add_argument(
        '--grace', type=int, default=180, metavar='SECONDS', help='time to save before SIGKILL'
      )
    if name == 'logs':
      verb.add_argument('-f', '--follow', action='store_true', help='follow until the run ends')
      verb.add_argument('--worker', default='0', help='number of a host, or all')
      verb.add_argument('--lines', type=int, default=100, help='number of last lines to show')
    if name == 'delete':
      verb.add_argument('--yes', action='store_true', help='do not ask')
  return main_parser


def main(argv: Sequence[str]) -> int:
  """Runs a verb, and returns the exit status."""
  argv = list(argv)
  end = argv.index('--') if '--' in argv else len(argv)
  args = parser().parse_args(argv[:end])
  args.rest = argv[end + 1 :]
  # After -- follows the command of `run`, or flags of gcloud for `create`.
  args.create_flags = args.rest if args.rest and args.verb == 'create' else None
  try:
    if args.rest and args.verb not in ('run', 'create'):
      raise LaunchError(Exit.USAGE, f'{args.verb} takes nothing after --')
    VERBS[args.verb](Node(load(args), args))
  except LaunchError as error:
    print(f'tpu_vm: {error}', file=sys.stderr)
    return error.status
  except KeyboardInterrupt:
    print(f'tpu_vm: interrupted; repeat `{args.verb}` to continue', file=sys.stderr)
    return Exit.INTERRUPTED
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
