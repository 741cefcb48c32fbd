"""Cloud TPU VMs, all hosts of a slice: `launch/tpu_vm.sh VERB --name NAME`; README.md tells all.

In Python, with nothing but its standard library, because the verbs ask many hosts at once, each
within a time limit, keep a state file and quote commands; and because tests can call it.

What a node is and what its hosts do is asked of them every time. The state file, one a name, keeps
what they cannot tell: the settings, the last command, and beside it the code that was sent last.

Exit statuses are those of `Exit`. An error is one line on standard error that names the remedy, and
leaves a state from which the next call goes on.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
import contextlib
import dataclasses
import enum
import json
import os
import pathlib
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = 'STEP_JAX_TPU_'

# On a host, below its home.
HOST = 'step_jax_tpu'
RUN_HOST = f'{HOST}/code/launch/run_host.sh'
SETUP_HOST = f'{HOST}/code/launch/setup_host.sh'

# How long one answer may take. gcloud itself tries ten times to reach a host.
SECONDS = {'gcloud': 120, 'host': 300, 'copy': 600, 'install': 1800, 'check': 900, 'delete': 1800}
PARALLEL = 16
# A host that is taken away does not close its connections.
SSH_OPTIONS = ('-oConnectTimeout=15', '-oServerAliveInterval=15', '-oServerAliveCountMax=4')

TIMED_OUT, NOT_FOUND, RUN_IS_ALIVE = 124, 127, 10  # Exit statuses of commands.

# https://cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
  'v5litepod': 'v2-alpha-tpuv5-lite',
  'v5p': 'v2-alpha-tpuv5',
  'v6e': 'v2-alpha-tpuv6e',
  **dict.fromkeys(('v2', 'v3', 'v4'), 'tpu-ubuntu2204-base'),
}


class Exit(enum.IntEnum):
  """Exit statuses, for scripts."""

  OTHER = 1
  USAGE = 2
  QUOTA = 3
  CAPACITY = 4
  EXISTS = 5
  DENIED = 6
  GONE = 7  # Pre-empted, or deleted: resume.
  WAIT = 8  # Not ready within the time limit: the same call goes on waiting.
  HOSTS = 9  # Some hosts failed, or their run did.
  ALIVE = 10  # A run is alive.
  INTERRUPTED = 130


class LaunchError(Exception):
  """One line that says what is wrong and what to do, and an exit status."""

  def __init__(self, status: Exit, message: str):
    super().__init__(message)
    self.status = status


# State: what is kept of a name between calls.


@dataclasses.dataclass
class State:
  """Settings of a node, and what was done with it."""

  name: str
  project: str = ''
  zone: str = ''
  type: str = ''
  version: str = ''
  spot: bool = False
  queued: bool = False
  create_flags: list[str] = dataclasses.field(default_factory=list)
  bucket: str = ''
  constraints: str = ''
  made: bool = False  # Asked for by create, and not deleted since.
  hosts: int = 0
  revision: str = ''  # Of the code that was sent last.
  run: str = ''  # Id of the last run.
  command: list[str] = dataclasses.field(default_factory=list)

  @property
  def runtime(self) -> str:
    """The runtime version: the one asked for, or the usual one of the type."""
    family = self.type.partition('-')[0]
    if not self.version and family not in RUNTIMES:
      raise LaunchError(Exit.USAGE, f'--version is missing: none is known for type {self.type}')
    return self.version or RUNTIMES[family]

  def file(self, suffix: str = '.json') -> pathlib.Path:
    """The state file, or with .tar.gz the code that was sent last."""
    base = os.environ.get('XDG_STATE_HOME') or '~/.local/state'
    folder = os.environ.get(f'{ENVIRONMENT}STATE') or f'{base}/step_jax/tpu'
    return pathlib.Path(folder).expanduser() / f'{self.name}{suffix}'


TEXTS = {
  'project': 'Google Cloud project',
  'zone': 'as us-central1-a',
  'type': 'accelerator type, as v5litepod-16',
  'version': "runtime version (default: the type's)",
  'bucket': 'gs://NAME that setup tries, and that commands find as STEP_JAX_BUCKET',
  'constraints': 'file of versions to pin (default: launch/constraints.txt)',
}
SWITCHES = {'spot': 'cheaper; can be pre-empted at any time', 'queued': 'wait in the queue'}
# A node cannot change these.
FIXED = ('project', 'zone', 'type', 'version', 'spot', 'queued', 'create_flags')


def load(args: argparse.Namespace) -> State:
  """The state of a name: kept from earlier calls or else from the environment; flags come first."""
  name = args.name or os.environ.get(f'{ENVIRONMENT}NAME', '')
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?', name):
    raise LaunchError(Exit.USAGE, f'--name {name!r}: takes small letters, digits and hyphens')
  state = State(name)
  try:
    state = State(**json.loads(state.file().read_text()))
  except FileNotFoundError:
    for field in (*TEXTS, *SWITCHES):
      value = os.environ.get(ENVIRONMENT + field.upper(), '')
      setattr(state, field, value if field in TEXTS else value not in ('', '0'))
  except (ValueError, TypeError) as error:
    raise LaunchError(Exit.USAGE, f'{state.file()} is damaged ({error}): remove it') from error
  for field in (*TEXTS, *SWITCHES, 'create_flags'):
    value = getattr(args, field, None)
    if value in (None, getattr(state, field)):
      continue
    if state.made and field in FIXED:
      remedy = 'delete it first, or take another --name'
      raise LaunchError(Exit.USAGE, f'{name} was made with another {field}: {remedy}')
    setattr(state, field, value)
  for field in ('project', 'zone', *(['type'] if args.verb == 'create' else [])):
    if not getattr(state, field):
      variable = ENVIRONMENT + field.upper()
      raise LaunchError(Exit.USAGE, f'--{field} is missing: give it, or set {variable}')
  if state.constraints:
    state.constraints = str(pathlib.Path(state.constraints).resolve())
  return state


def replace_file(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
  """Writes a file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    write(temporary)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


# What gcloud and the hosts say.


@dataclasses.dataclass(frozen=True)
class Result:
  """How a command ended."""

  status: int
  out: str = ''
  err: str = ''

  @property
  def reason(self) -> str:
    """Why it failed, in one line."""
    own = re.findall(r'^(?:setup|run)_host: (.*)$', self.err, re.M)
    # gcloud prints operations that failed as JSON.
    message = re.search(r'"message": "((?:[^"\\]|\\.)*)"', self.err)
    error = re.search(r'^ERROR: \(\S+\) (.*)', self.err, re.M | re.S)
    lines = (self.err.strip() or self.out.strip() or f'status {self.status}').splitlines()
    text = own[-1] if own else (message or error or ['', lines[-1]])[1]
    return ' '.join(text.replace('\\"', '"').split())[:300]


class Condition(enum.Enum):
  """How a node is; where it cannot be used, the exit status, and what to say."""

  READY = None
  WAITING = (Exit.WAIT, 'is not ready yet: `create` or `resume` goes on waiting')
  PREEMPTED = (Exit.GONE, 'was pre-empted: `resume` makes it again and repeats the last command')
  GONE = (Exit.GONE, 'does not exist: `create` makes it; `resume` also repeats the last command')
  FAILED = (Exit.OTHER, 'was not granted: `create` asks again, `delete` gives up')
  LEAVING = (Exit.WAIT, 'is being deleted: call again in a minute')
  STOPPED = (Exit.OTHER, 'is stopped: start it by gcloud compute tpus tpu-vm start, or `delete` it')


OF_NODE = {
  'READY': Condition.READY,
  'PREEMPTED': Condition.PREEMPTED,
  'TERMINATED': Condition.PREEMPTED,
  'DELETING': Condition.LEAVING,
  **dict.fromkeys(('STOPPING', 'STOPPED', 'HIDING', 'HIDDEN'), Condition.STOPPED),
}
# These count more than the node, which may look well while it is being taken away.
OF_REQUEST = {
  'SUSPENDING': Condition.PREEMPTED,
  'SUSPENDED': Condition.PREEMPTED,
  'DELETING': Condition.LEAVING,
  'FAILED': Condition.FAILED,
}


@dataclasses.dataclass(frozen=True)
class Look:
  """A node as it is now."""

  condition: Condition
  text: str
  hosts: int


@dataclasses.dataclass(frozen=True)
class HostState:
  """What `run_host.sh state` tells of a host; bare where there is no code, or unreachable."""

  word: str  # none, alive, ended, lost (without an exit status), bare or unreachable
  run: str = ''
  exit: str = ''
  ready: str = 'no'
  last: str = ''


# Tried in this order.
KNOWN = (
  (
    Exit.CAPACITY,
    r'no more capacity|insufficient (\w+ )?capacity|stockout|POOL_EXHAUSTED',
    'no capacity for {type} in {zone} now: try later, another --zone, or --queued to wait for it',
  ),
  (
    Exit.QUOTA,
    r'quota',
    'the quota of {project} does not allow {type} in {zone}: ask for more (console: IAM, Quotas, '
    'Cloud TPU API), or take another --type or --zone; --spot has a quota of its own',
  ),
  (
    Exit.EXISTS,
    r'ALREADY_EXISTS|already exists',
    'exists already, and was not made from here: take another --name, or `delete` it; if it is '
    'yours, go on with `setup`',
  ),
  (
    Exit.DENIED,
    r'has not been used in project|SERVICE_DISABLED|API is (disabled|not enabled)',
    'the Cloud TPU API is off: gcloud services enable tpu.googleapis.com --project={project}',
  ),
  (
    Exit.DENIED,
    r'auth login|active account|reauthentication|auth tokens',
    'gcloud is not logged in: gcloud auth login',
  ),
  (
    Exit.DENIED,
    r'permission|not authorized',
    'you may not do this in {project}, {zone}: check both, and ask for the role TPU Admin',
  ),
)


# What a dry run takes for the answer of `run_host.sh state`.
BARE, NOTHING_RUN = 'bare\t\t\tno\t', 'none\t\t\tyes\t'
OK = Result(0)


def numbers(workers: Iterable[int]) -> str:
  """As 0, 3, 7."""
  return ', '.join(map(str, workers))


class Node:
  """A node and its hosts, through gcloud.

  A dry run prints the commands and invents their answers: those of a node on which nothing was done.
  """

  def __init__(self, state: State, args: argparse.Namespace):
    self.state = state
    self.args = args
    self.dry_run = args.dry_run
    self._there = args.verb not in ('create', 'resume')  # Whether it exists, in a dry run.
    self._processes: set[subprocess.Popen] = set()

  def say(self, text: str) -> None:
    """Tells progress. The output of a dry run stays a shell script."""
    print(f'# {text}' if self.dry_run else text, flush=True)

  def save(self) -> None:
    """Writes the state file."""
    if not self.dry_run:
      text = json.dumps(dataclasses.asdict(self.state), indent=2) + '\n'
      replace_file(self.state.file(), lambda path: path.write_text(text))

  def error(self, status: Exit, message: str) -> LaunchError:
    """An error that names the node."""
    return LaunchError(status, f'{self.state.name}: {message}')

  def failure(self, what: str, reason: str) -> LaunchError:
    """The error for what gcloud gave as its reason."""
    for status, pattern, message in KNOWN:
      if re.search(pattern, reason, re.I):
        known = message.format(**dataclasses.asdict(self.state))
        return self.error(status, f'{known} ({reason})')
    return self.error(Exit.OTHER, f'{what} failed: {reason}')

  # Commands, here and on the hosts.

  def execute(
    self, command: Sequence[str], seconds: float | None, assume: str = '', stream: bool = False
  ) -> Result:
    """Runs a command within a time limit; a dry run prints it and takes `assume` as its output.

    With `stream` its output goes straight to ours.
    """
    if self.dry_run:
      print(shlex.join(command), flush=True)
      return Result(0, assume)
    output = None if stream else subprocess.PIPE
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': output, 'stderr': output}
    try:
      # A session of its own, so that all that it starts can be ended.
      process = subprocess.Popen(
        command, **pipes, text=True, errors='replace', start_new_session=True
      )
    except FileNotFoundError as error:
      raise LaunchError(Exit.USAGE, f'{command[0]} is not on PATH: install it') from error
    self._processes.add(process)
    try:
      out, err = process.communicate(timeout=seconds)
      return Result(process.returncode, out or '', err or '')
    except subprocess.TimeoutExpired:
      return Result(TIMED_OUT, '', f'no answer within {seconds:g} s')
    finally:
      kill(process)
      process.communicate()
      self._processes.discard(process)

  def gcloud(
    self, kind: str, verb: str, *arguments: str, seconds: float | None = 0, **how
  ) -> Result:
    """Runs `gcloud compute tpus KIND VERB ARGUMENTS` for the zone and project of the node."""
    where = (f'--zone={self.state.zone}', f'--project={self.state.project}', '--quiet')
    command = ('gcloud', 'compute', 'tpus', kind, verb, *arguments, *where)
    return self.execute(command, SECONDS['gcloud'] if seconds == 0 else seconds, **how)

  def ssh(self, worker: int, command: Sequence[str], *, limit: str = 'host', **how) -> Result:
    """Runs a command on a host."""
    flags = [f'--worker={worker}', *(f'--ssh-flag={option}' for option in SSH_OPTIONS)]
    flags += [f'--command={shlex.join(command)}']
    how = {'seconds': SECONDS[limit], **how}
    return self.gcloud('tpu-vm', 'ssh', self.state.name, *flags, **how)

  def scp(self, worker: int, source: pathlib.Path, target: str) -> Result:
    """Sends a file to a path below the home of a host."""
    flags = [f'--worker={worker}', *(f'--scp-flag={option}' for option in SSH_OPTIONS)]
    paths = (str(source), f'{self.state.name}:{target}')
    return self.gcloud('tpu-vm', 'scp', *paths, *flags, seconds=SECONDS['copy'])

  def everywhere(
    self, call: Callable[[int], Result], workers: Iterable[int] | None = None
  ) -> dict[int, Result]:
    """Calls for every host at once, or for some.

    One gcloud a host rather than one with --worker=all: that parts their outputs and statuses,
    limits the time of each, and needs no ssh-agent.
    """
    workers = list(range(self.state.hosts or 1) if workers is None else workers)
    with futures.ThreadPoolExecutor(1 if self.dry_run else PARALLEL) as pool:
      try:
        return dict(zip(workers, pool.map(call, workers), strict=True))
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
          kill(process)
        raise

  def check(self, what: str, results: dict[int, Result], remedy: str) -> None:
    """Raises an error that names the hosts that failed, or tells that the node is gone."""
    bad = {worker: result for worker, result in results.items() if result.status}
    if not bad:
      return
    self.require_ready()
    for worker, result in bad.items():
      print(f'worker {worker}: {result.reason}', file=sys.stderr)
    refused = all(result.status == RUN_IS_ALIVE for result in bad.values())
    where = f'worker {numbers(bad)} of {self.state.hosts} ({next(iter(bad.values())).reason})'
    others = 'the others are done; ' if len(bad) < len(results) else ''
    raise self.error(
      Exit.ALIVE if refused else Exit.HOSTS, f'{what} failed on {where}: {others}{remedy}'
    )

  def states(self, assume: str) -> list[HostState]:
    """How every host is; a dry run takes them to be as `assume`."""
    command = ['bash', RUN_HOST, 'state']
    results = self.everywhere(lambda worker: self.ssh(worker, command, assume=assume))
    return [_host_state(result) for result in results.values()]

  # The node.

  def describe(self, kind: str) -> dict | None:
    """What gcloud tells of the node or of its queued resource; None where there is none."""
    endpoints = [{}] * (self.state.hosts or 1)
    invented = {
      'tpu-vm': {'state': 'READY', 'networkEndpoints': endpoints},
      'queued-resources': {'state': {'state': 'ACTIVE'}},
    }
    assume = json.dumps(invented[kind] if self._there else None)
    result = self.gcloud(kind, 'describe', self.state.name, '--format=json', assume=assume)
    if re.search('NOT_FOUND|was not found', result.err):
      return None
    if result.status:
      raise self.failure('describe', result.reason)
    return json.loads(result.out)

  def look(self) -> Look:
    """Asks how the node is."""
    node = self.describe('tpu-vm') or {}
    request = (self.describe('queued-resources') or {}) if self.state.queued else {}
    told = request.get('state', {})
    node_state, request_state = node.get('state', ''), told.get('state', '')
    if request_state in OF_REQUEST:
      condition = OF_REQUEST[request_state]
    elif node:
      condition = OF_NODE.get(node_state, Condition.WAITING)
    else:
      condition = Condition.GONE if request_state in ('', 'ACTIVE') else Condition.WAITING
    text = f'node {node_state or "absent"}'
    if self.state.queued:
      text += f', queued resource {request_state or "absent"}'
    if reason := told.get('failedData', {}).get('error', {}).get('message'):
      text += f': {reason}'
    # Hosts on several networks have as many endpoints.
    networks = max(1, len(node.get('networkConfigs', ())))
    return Look(condition, text, len(node.get('networkEndpoints', ())) // networks)

  def require_ready(self) -> None:
    """Raises where the node cannot be used; learns how many hosts it has."""
    look = self.look()
    if look.condition is not Condition.READY:
      raise self.unready(look)
    self.state.hosts = look.hosts
    self.save()

  def unready(self, look: Look) -> LaunchError:
    """The error for a node that cannot be used."""
    status, message = look.condition.value
    if look.condition is Condition.FAILED:
      status = self.failure('the request', look.text).status
    return self.error(status, f'{message} ({look.text})')

  def request(self) -> None:
    """Asks the cloud for the node."""
    state = self.state
    flags = [f'--accelerator-type={state.type}', *['--spot'] * state.spot, *state.create_flags]
    seconds = self.args.wait * 60
    if state.queued:
      kind, seconds = 'queued-resources', SECONDS['gcloud']
      flags += [f'--node-id={state.name}', f'--runtime-version={state.runtime}']
    else:
      kind = 'tpu-vm'
      flags += [f'--version={state.runtime}']
    # From here on there may be a node, whatever happens.
    state.made, state.hosts = True, 0
    self.save()
    result = self.gcloud(kind, 'create', state.name, *flags, seconds=seconds)
    if result.status == TIMED_OUT:
      raise self.error(Exit.WAIT, f'{result.reason} of create: `{self.args.verb}` goes on waiting')
    if result.status:
      error = self.failure('create', result.reason)
      state.made = error.status is Exit.OTHER
      self.save()
      raise error
    self._there = True

  def wait_ready(self) -> None:
    """Waits for the node, and until it takes commands."""
    begin = told_at = time.monotonic()
    told, failures = '', 0
    while True:
      try:
        look, failures = self.look(), 0
      except LaunchError as error:
        # Hours of waiting see a network fail now and then.
        failures += 1
        if error.status is not Exit.OTHER or failures == 5:
          raise
        look = Look(Condition.WAITING, str(error), 0)
      if look.condition is Condition.READY:
        break
      if look.condition is not Condition.WAITING:
        raise self.unready(look)
      now = time.monotonic()
      if now - begin > self.args.wait * 60:
        remedy = f'`{self.args.verb}` goes on waiting, `delete` gives up'
        raise self.error(
          Exit.WAIT, f'not ready after {self.args.wait:g} min ({look.text}): {remedy}'
        )
      if look.text != told or now - told_at >= 300:
        self.say(f'{(now - begin) / 60:.0f} min: {look.text}')
        told, told_at = look.text, now
      time.sleep(self.args.poll)
    self.state.hosts = look.hosts
    self.save()
    # One host before all: here gcloud makes an ssh key, and hands it to the node.
    hello = {0: self.ssh(0, ['true'])}
    self.check('ssh', hello, f'it is ready and costs; give `{self.args.verb}` again')
    self.say(f'{self.state.name} is ready: {self.state.type}, {look.hosts} hosts')

  def remove(self) -> None:
    """Deletes node and queued resource, and waits until both are gone."""
    name, deadline = self.state.name, time.monotonic() + SECONDS['delete']
    while True:
      request, node = self.describe('queued-resources'), self.describe('tpu-vm')
      if not request and not node:
        return
      leaving = (request or {}).get('state', {}).get('state') in ('SUSPENDING', 'DELETING')
      if leaving or (not request and node.get('state') == 'DELETING'):
        if time.monotonic() > deadline:
          raise self.error(Exit.WAIT, 'is still being deleted: call again later')
        time.sleep(self.args.poll)
        continue
      kind, flags = ('queued-resources', ['--force']) if request else ('tpu-vm', [])
      result = self.gcloud(kind, 'delete', name, *flags, seconds=SECONDS['delete'])
      if result.status and not re.search('NOT_FOUND|was not found', result.err):
        raise self.failure('delete', result.reason)
      self._there = False

  # The code.

  def pack(self) -> None:
    """Makes the archive of the checkout that hosts get."""
    status = self.git('status', '--porcelain').splitlines()
    head = self.git('rev-parse', '--short=12', 'HEAD').strip()
    if status and not self.args.dirty:
      changed = f'{status[0][3:]} and {len(status) - 1} more' if status[1:] else status[0][3:]
      remedy = 'commit them, or send them with --dirty'
      raise LaunchError(
        Exit.USAGE, f'the checkout has changes that HEAD lacks ({changed}): {remedy}'
      )
    self.state.revision = f'{head}-dirty' if status else head
    archive = self.state.file('.tar.gz')
    if status:
      replace_file(archive, self._pack_files)
    elif self.dry_run:
      self._pack_head(archive)
    else:
      replace_file(archive, self._pack_head)
    self.save()

  def _pack_head(self, path: pathlib.Path) -> None:
    self.git('archive', '--format=tar.gz', f'--output={path}', 'HEAD')

  def _pack_files(self, path: pathlib.Path) -> None:
    names = self.git('ls-files', '-z', '--cached', '--others', '--exclude-standard').split('\0')
    with tarfile.open(path, 'w:gz') as archive:
      for name in filter(None, names):
        # Tracked files may have been deleted.
        if os.path.lexists(ROOT / name):
          archive.add(ROOT / name, name, recursive=False)

  def git(self, *arguments: str) -> str:
    """What git says of the checkout."""
    result = self.execute(('git', '-C', str(ROOT), *arguments), SECONDS['gcloud'])
    if result.status:
      raise LaunchError(
        Exit.USAGE, f'{ROOT}: {result.reason}; the code is sent from a git checkout'
      )
    return result.out

  def send(self, workers: Iterable[int] | None = None) -> None:
    """Sends the archive to hosts, and puts it in the place of their code."""
    archive, parcel = self.state.file('.tar.gz'), f'{HOST}.tar.gz'
    sent = self.everywhere(lambda worker: self.scp(worker, archive, parcel), workers)
    self.check('copy', sent, f'give `{self.args.verb}` again')
    script = (
      f'mkdir -p {HOST} && cd {HOST} && rm -rf code.new && mkdir code.new && '
      f'tar -xzf ../{parcel} -C code.new && bash code.new/launch/run_host.sh adopt "$1"'
    )
    command = ['bash', '-c', script, 'copy', self.state.revision]
    unpacked = self.everywhere(lambda worker: self.ssh(worker, command), workers)
    self.check('copy', unpacked, f'give `{self.args.verb}` again')
    self.say(f'code {self.state.revision} is on the hosts')


def kill(process: subprocess.Popen) -> None:
  """Ends a process and all that it started."""
  if process.poll() is None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)


def _host_state(result: Result) -> HostState:
  if result.status == NOT_FOUND:
    return HostState('bare')
  if result.status:
    return HostState('unreachable', last=result.reason)
  return HostState(*result.out.rstrip('\n').split('\n')[-1].split('\t'))


def workers_of(states: Sequence[HostState], *words: str) -> list[int]:
  """The hosts whose state is one of these."""
  return [worker for worker, state in enumerate(states) if state.word in words]


# Verbs.


def reachable(node: Node, assume: str, may_run: bool = False) -> list[HostState]:
  """The states of all hosts; raises where one cannot be reached, or runs though it may not."""
  states = node.states(assume)
  silent = workers_of(states, 'unreachable')
  results = {w: Result(255, err=states[w].last) if w in silent else OK for w in range(len(states))}
  node.check('ssh', results, f'nothing was changed, give `{node.args.verb}` again')
  busy = workers_of(states, 'alive')
  if busy and not may_run:
    remedy = '`stop` it first; `resume` starts it where it is missing'
    raise node.error(Exit.ALIVE, f'a run is alive on worker {numbers(busy)}: {remedy}')
  return states


def create(node: Node) -> None:
  """Makes the node and waits until it is ready."""
  look = node.look()
  if look.condition is not Condition.GONE and not node.state.made:
    raise node.failure('create', f'it already exists: {look.text}')
  if look.condition in (Condition.FAILED, Condition.LEAVING):
    node.remove()
  if look.condition in (Condition.FAILED, Condition.LEAVING, Condition.GONE):
    node.request()
  else:
    node.say(f'asked for already: {look.text}')
  node.wait_ready()


def setup(node: Node) -> None:
  """Python, environment and checks on every host; before, the code on those that have none."""
  node.require_ready()
  bare = workers_of(reachable(node, BARE), 'bare')
  if bare:
    known = node.state.file('.tar.gz').exists()
    if not known:
      node.pack()
    node.send(bare if known else None)
  flags = ['--venv', f'{HOST}/venv']
  again = 'see above; `setup` again skips what is done'
  if node.state.constraints:
    pins, target = pathlib.Path(node.state.constraints), f'{HOST}/constraints.txt'
    node.check('copy', node.everywhere(lambda worker: node.scp(worker, pins, target)), again)
    flags += ['--constraints', target]
  node.say('installing on every host; the first time takes some minutes')
  install = ['bash', SETUP_HOST, 'install', *flags]
  made = node.everywhere(lambda worker: node.ssh(worker, install, limit='install'))
  node.check('setup', made, again)
  # All at once: the hosts of a slice find their chips together.
  check = ['bash', SETUP_HOST, 'check', '--venv', f'{HOST}/venv', '--hosts', str(node.state.hosts)]
  check += ['--bucket', node.state.bucket] if node.state.bucket else []
  checked = node.everywhere(lambda worker: node.ssh(worker, check, limit='check'))
  node.check('setup', checked, again)
  node.say(f'set up: {checked[0].out.strip()}')


def copy(node: Node) -> None:
  """Sends the checkout."""
  node.require_ready()
  reachable(node, NOTHING_RUN)
  node.pack()
  node.send()


def run(node: Node) -> None:
  """Starts a command on every host, in the background."""
  if not node.args.rest:
    raise LaunchError(Exit.USAGE, 'run what? Give the command after --')
  node.require_ready()
  states = reachable(node, NOTHING_RUN)
  if bare := [worker for worker, state in enumerate(states) if state.ready != 'yes']:
    raise node.error(Exit.HOSTS, f'worker {numbers(bare)} is not set up: `setup`, then `run`')
  node.state.command = node.args.rest
  start(node)


def start(node: Node, missing: Sequence[int] = ()) -> None:
  """Starts the last command as a new run; or a run that has begun, where it is missing."""
  state = node.state
  if not missing:
    state.run = f'{time.strftime("%Y%m%d-%H%M%S")}-{secrets.token_hex(2)}'
    # Before it starts, so that resume knows it, whatever happens.
    node.save()
  bucket = ['env', f'STEP_JAX_BUCKET={state.bucket}'] if state.bucket else []
  command = ['bash', RUN_HOST, 'start', state.run, *bucket, *state.command]
  started = node.everywhere(lambda worker: node.ssh(worker, command), missing or None)
  node.check('run', started, '`resume` starts it where it is missing, `stop` ends it elsewhere')
  node.say(f'{state.run} runs on {state.hosts or 1} hosts: {shlex.join(state.command)}')


def resume(node: Node) -> None:
  """Goes on with the last command, on a node that is made again if need be."""
  state = node.state
  if not state.command:
    raise node.error(Exit.USAGE, 'no command has been run: `run -- COMMAND`')
  look = node.look()
  usable = (Condition.READY, Condition.WAITING, Condition.STOPPED)
  if look.condition not in usable:
    node.say(f'making it again: {look.text}')
    node.remove()
    node.request()
  node.wait_ready()
  states = reachable(node, BARE, may_run=True)
  if not all(host.ready == 'yes' for host in states):
    setup(node)
    states = reachable(node, NOTHING_RUN, may_run=True)
  began = [host for host in states if host.run == state.run]
  missing = [worker for worker, host in enumerate(states) if host.run != state.run]
  if not missing and all(host.word == 'alive' for host in states):
    node.say(f'{state.run} is alive on every host')
  elif not missing and all(host.exit == '0' for host in states):
    node.say(f'{state.run} has ended well on every host: nothing to resume')
  elif missing and began and all(host.word == 'alive' for host in began):
    start(node, missing)
  else:
    # Where one host of a run has ended, the others cannot go on without it.
    if workers_of(states, 'alive'):
      stop(node)
    start(node)


def status(node: Node) -> None:
  """Tells how the node is, and its run on every host."""
  look = node.look()
  state = node.state
  print(f'{state.name}: {look.text}; {state.type or "?"} in {state.zone} of {state.project}')
  if look.condition is not Condition.READY:
    raise node.unready(look)
  state.hosts = look.hosts
  node.save()
  states = node.states(NOTHING_RUN)
  rows = [('worker', 'run', 'exit', 'id', 'last line')]
  rows += [(str(w), h.word, h.exit, h.run, h.last[:80]) for w, h in enumerate(states)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
  bad = workers_of(states, 'lost', 'unreachable')
  bad += [w for w, host in enumerate(states) if host.word == 'ended' and host.exit != '0']
  if bad:
    remedy = f'see `logs --worker {min(bad)}`; `resume` repeats the command'
    raise node.error(Exit.HOSTS, f'the run is not well on worker {numbers(sorted(bad))}: {remedy}')


def logs(node: Node) -> None:
  """Shows the log of the run, of one host or of all."""
  args = node.args
  node.require_ready()
  command = ['bash', RUN_HOST, 'log', str(args.lines)]
  if args.worker == 'all' and not args.follow:
    shown = node.everywhere(lambda worker: node.ssh(worker, command))
    for worker, result in shown.items():
      print(f'== worker {worker}\n{result.out}', end='')
    node.check('logs', shown, 'call again')
    return
  if not (args.worker.isdecimal() and int(args.worker) < (node.state.hosts or 1)):
    one = 'one of' if args.follow else 'all or one of'
    raise LaunchError(Exit.USAGE, f'--worker takes {one} 0 to {node.state.hosts - 1}')
  command += ['follow'] * args.follow
  with contextlib.suppress(KeyboardInterrupt) if args.follow else contextlib.nullcontext():
    result = node.ssh(int(args.worker), command, seconds=None, stream=True)
    if result.status:
      raise node.error(Exit.HOSTS, f'no log of worker {args.worker}, or no more: see above')


def stop(node: Node) -> None:
  """Ends the run: SIGTERM, upon which training saves, and SIGKILL after a while."""
  node.require_ready()
  # Those that do not answer may run.
  busy = workers_of(node.states(NOTHING_RUN), 'alive', 'unreachable')
  command = ['bash', RUN_HOST, 'stop', str(node.args.grace)]
  seconds = node.args.grace + SECONDS['host']
  stopped = node.everywhere(lambda worker: node.ssh(worker, command, seconds=seconds), busy)
  node.check('stop', stopped, 'give `stop` again')
  for worker, result in stopped.items():
    node.say(f'worker {worker}: {result.out.strip()}')
  if not busy:
    node.say('no run was alive')


def delete(node: Node) -> None:
  """Deletes node, queued resource and what is kept of them."""
  state = node.state
  if not node.args.yes and not node.dry_run:
    if not sys.stdin.isatty():
      raise LaunchError(Exit.USAGE, 'nobody can be asked here: give --yes to delete')
    question = (
      f'Delete {state.name} in {state.zone} of {state.project}, with all on its disks? [y/N] '
    )
    if input(question).strip().lower() not in ('y', 'yes'):
      raise node.error(Exit.USAGE, 'kept')
  node.remove()
  if not node.dry_run:
    state.file('.tar.gz').unlink(missing_ok=True)
    state.file().unlink(missing_ok=True)
  node.say(f'{state.name} is deleted, and costs no more')


VERBS = {verb.__name__: verb for verb in (create, setup, copy, run, logs)}
VERBS |= {verb.__name__: verb for verb in (status, resume, stop, delete)}


def parser() -> argparse.ArgumentParser:
  """The command line; what follows -- is not its part."""
  main_parser = argparse.ArgumentParser(
    prog='launch/tpu_vm.sh',
    description='Cloud TPU VMs, all hosts of a slice.',
    epilog=f'Settings may also be given as {ENVIRONMENT}NAME, {ENVIRONMENT}ZONE and so on; later '
    'calls need only the name. Exit status: '
    + ', '.join(f'{value.value} {value.name.lower()}' for value in Exit),
    allow_abbrev=False,
  )
  verbs = main_parser.add_subparsers(dest='verb', required=True, metavar='VERB')
  for name, function in VERBS.items():
    verb = verbs.add_parser(
      name, help=function.__doc__, description=function.__doc__, allow_abbrev=False
    )
    verb.add_argument('--name', help='of the node')
    for field, text in TEXTS.items():
      verb.add_argument(f'--{field}', help=text)
    for field, text in SWITCHES.items():
      verb.add_argument(f'--{field}', action='store_true', default=None, help=text)
    verb.add_argument('--dry-run', action='store_true', help='print commands, run none')
    if name in ('create', 'resume'):
      verb.add_argument('--wait', type=float, default=60, metavar='MINUTES', help='for the node')
    if name in ('create', 'resume', 'delete'):
      verb.add_argument('--poll', type=float, default=15, metavar='SECONDS', help='between looks')
    if name in ('setup', 'copy', 'resume'):
      verb.add_argument('--dirty', action='store_true', help='send changes that are not committed')
    if name in ('stop', 'resume'):
      verb.add_argument('--grace', type=int, default=180, metavar='SECONDS', help='to save in')
    if name == 'logs':
      verb.add_argument('-f', '--follow', action='store_true', help='until the run ends')
      verb.add_argument('--worker', default='0', help='number, or all')
      verb.add_argument('--lines', type=int, default=100, help='from the end')
    if name == 'delete':
      verb.add_argument('--yes', action='store_true', help='do not ask')
  return main_parser


def main(argv: Sequence[str]) -> int:
  """Runs a verb; returns the exit status."""
  argv = list(argv)
  end = argv.index('--') if '--' in argv else len(argv)
  args = parser().parse_args(argv[:end])
  args.rest = argv[end + 1 :]
  try:
    if args.rest and args.verb not in ('run', 'create'):
      raise LaunchError(Exit.USAGE, f'{args.verb} takes nothing after --')
    args.create_flags = args.rest or None if args.verb == 'create' else None
    VERBS[args.verb](Node(load(args), args))
  except LaunchError as error:
    print(f'tpu_vm: {error}', file=sys.stderr)
    return error.status
  except KeyboardInterrupt:
    print(f'tpu_vm: interrupted; `{args.verb}` goes on where it was', file=sys.stderr)
    return Exit.INTERRUPTED
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
