"""A Cloud TPU VM node and its hosts, accessed through gcloud; tpu_vm.py has the verbs.

The states of the node and of its hosts are queried in every call. The state file (one per name) has
the settings and the last command; the code that was sent last is in the same folder.
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
import shlex
import signal
import subprocess
import sys
import tempfile
import time

ENVIRONMENT = 'STEP_JAX_TPU_'

# Paths on a host, relative to its home.
HOST = 'step_jax_tpu'
RUN_HOST = f'{HOST}/code/launch/run_host.sh'
SETUP_HOST = f'{HOST}/code/launch/setup_host.sh'

# Time limits of commands. gcloud itself tries ten times to reach a host.
SECONDS = {'gcloud': 120, 'host': 300, 'copy': 600, 'install': 1800, 'check': 900, 'delete': 1800}
PARALLEL = 16
# A preempted host does not close its connections.
SSH_OPTIONS = ('-oConnectTimeout=15', '-oServerAliveInterval=15', '-oServerAliveCountMax=4')
TIMED_OUT, NO_SUCH_COMMAND, RUN_IS_ALIVE = 124, 127, 10  # Exit statuses of commands.

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
  GONE = 7  # Preempted or deleted: resume.
  WAIT = 8  # Not ready within the time limit: repeat the call to continue waiting.
  HOSTS = 9  # Some hosts failed, or their run failed.
  ALIVE = 10  # A run is alive.
  INTERRUPTED = 130


class LaunchError(Exception):
  """An error with one line that says what is wrong and what to do, and an exit status."""

  def __init__(self, status: Exit, message: str):
    super().__init__(message)
    self.status = status


TEXTS = {
  'project': 'Google Cloud project',
  'zone': 'for example us-central1-a',
  'type': 'accelerator type, for example v5litepod-16',
  'version': 'runtime version (default: that of the type)',
  'bucket': 'gs://NAME: setup checks it, and commands get it as STEP_JAX_BUCKET',
}
SWITCHES = {'spot': 'cheaper; can be preempted at any time', 'queued': 'wait in the queue'}
# Settings that cannot change after the node was created.
FIXED = ('project', 'zone', 'type', 'version', 'spot', 'queued', 'create_flags')


@dataclasses.dataclass
class State:
  """State of a node that is kept between calls: settings, and what was done."""

  name: str
  project: str = ''
  zone: str = ''
  type: str = ''
  version: str = ''
  spot: bool = False
  queued: bool = False
  create_flags: list[str] = dataclasses.field(default_factory=list)
  bucket: str = ''
  made: bool = False  # Requested by create, and not deleted since.
  hosts: int = 0
  revision: str = ''  # Revision of the code that was sent last.
  run: str = ''  # Id of the last run.
  command: list[str] = dataclasses.field(default_factory=list)

  @property
  def runtime(self) -> str:
    """The runtime version: the given one, or the default of the type."""
    family = self.type.partition('-')[0]
    if not self.version and family not in RUNTIMES:
      raise LaunchError(Exit.USAGE, f'--version is missing: type {self.type} has no default')
    return self.version or RUNTIMES[family]

  def file(self, suffix: str = '.json') -> pathlib.Path:
    """Path of the state file, or with `.tar.gz` of the code that was sent last."""
    base = os.environ.get('XDG_STATE_HOME') or '~/.local/state'
    folder = os.environ.get(f'{ENVIRONMENT}STATE') or f'{base}/step_jax/tpu'
    return pathlib.Path(folder).expanduser() / f'{self.name}{suffix}'


def load(args: argparse.Namespace) -> State:
  """State of a node, from earlier calls or from the environment; flags take precedence."""
  name = args.name or os.environ.get(f'{ENVIRONMENT}NAME', '')
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?', name):
    raise LaunchError(Exit.USAGE, f'--name {name!r}: use lowercase letters, digits and hyphens')
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
    value = getattr(args, field)
    if value in (None, getattr(state, field)):
      continue
    if state.made and field in FIXED:
      remedy = '`delete` it first, or take another --name'
      raise LaunchError(Exit.USAGE, f'{name} was created with another {field}: {remedy}')
    setattr(state, field, value)
  for field in ('project', 'zone', *(['type'] if args.verb == 'create' else [])):
    if not getattr(state, field):
      variable = ENVIRONMENT + field.upper()
      raise LaunchError(Exit.USAGE, f'--{field} is missing: give it, or set {variable}')
  return state


def replace_file(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
  """Writes a file atomically."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    write(temporary)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of a command."""

  status: int = 0
  out: str = ''
  err: str = ''

  @property
  def reason(self) -> str:
    """Reason of a failure, in one line."""
    own = re.findall(r'^(?:setup|run)_host: (.*)$', self.err, re.M)
    ssh = re.search(r'^((?:ssh: |Connection ).*)', self.err, re.M)
    # gcloud prints failed operations as JSON.
    message = re.search(r'"message": "((?:[^"\\]|\\.)*)"', self.err)
    error = re.search(r'^ERROR: \(\S+\) (.*)', self.err, re.M | re.S)
    lines = (self.err.strip() or self.out.strip() or f'status {self.status}').splitlines()
    text = own[-1] if own else (ssh or message or error or ['', lines[-1]])[1]
    return ' '.join(text.replace('\\"', '"').split())[:300]


class Condition(enum.Enum):
  """Condition of a node; if it is not usable, with the exit status and the message."""

  READY = None
  WAITING = (Exit.WAIT, 'is not ready yet: repeat `create` or `resume` to continue waiting')
  PREEMPTED = (Exit.GONE, 'was preempted: `resume` recreates it and repeats the last command')
  GONE = (Exit.GONE, 'does not exist: `create` makes it; `resume` also repeats the last command')
  FAILED = (Exit.OTHER, 'was not granted: `create` requests it again, `delete` removes the request')
  LEAVING = (Exit.WAIT, 'is being deleted: call again in a minute')
  STOPPED = (
    Exit.OTHER, 'is stopped: start it with gcloud compute tpus tpu-vm start, or `delete` it'
  )  # fmt: skip


OF_NODE = {
  'READY': Condition.READY,
  'PREEMPTED': Condition.PREEMPTED,
  'TERMINATED': Condition.PREEMPTED,
  'DELETING': Condition.LEAVING,
  **dict.fromkeys(('STOPPING', 'STOPPED', 'HIDING', 'HIDDEN'), Condition.STOPPED),
}
# These take precedence over the state of the node, which may look healthy during a preemption.
OF_REQUEST = {
  'SUSPENDING': Condition.PREEMPTED,
  'SUSPENDED': Condition.PREEMPTED,
  'DELETING': Condition.LEAVING,
  'FAILED': Condition.FAILED,
}


@dataclasses.dataclass(frozen=True)
class Look:
  """Current condition of a node."""

  condition: Condition
  text: str
  hosts: int


@dataclasses.dataclass(frozen=True)
class HostState:
  """State of a host, as printed by `run_host.sh state`."""

  word: str  # none, alive, ended, stopped, lost (no status), bare (no code) or unreachable
  run: str = ''
  exit: str = ''
  ready: str = 'no'
  revision: str = ''
  last: str = ''

  @classmethod
  def of(cls, result: Result) -> 'HostState':
    """Parses the answer of a host."""
    if result.status == NO_SUCH_COMMAND:
      return cls('bare')
    if result.status:
      return cls('unreachable', last=result.reason)
    return cls(*result.out.rstrip('\n').split('\n')[-1].split('\t'))


# Answers that a dry run assumes.
BARE, IDLE, BUSY = 'bare', 'none\t\t\tyes', 'alive\t\t\tyes'


# Patterns of gcloud's error messages, tried in this order.
KNOWN = (
  (
    Exit.QUOTA,
    r'quota\b.{0,150}(exceeded|exhausted)|QUOTA_EXCEEDED',
    'the quota of {project} does not allow {type} in {zone}: request more (console: IAM, Quotas, '
    'Cloud TPU API), or use another --type or --zone; --spot has its own quota',
  ),
  (
    Exit.CAPACITY,
    r'no more capacity|insufficient (\w+ )?capacity|stockout|RESOURCE_EXHAUSTED|POOL_EXHAUSTED',
    'no capacity for {type} in {zone} now: try later, another --zone, or --queued to wait for it',
  ),
  (
    Exit.EXISTS,
    r'ALREADY_EXISTS|already exists',
    'already exists and was not created from here: use another --name, or `delete` it; if it is '
    'yours, continue with `setup`',
  ),
  (
    Exit.DENIED,
    r'has not been used in project|SERVICE_DISABLED|API is (disabled|not enabled)',
    'the Cloud TPU API is disabled: gcloud services enable tpu.googleapis.com --project={project}',
  ),
  (
    Exit.DENIED,
    r'auth login|active account|reauthentication|auth tokens',
    'gcloud is not logged in: gcloud auth login',
  ),
  (
    Exit.DENIED,
    r'PERMISSION_DENIED|permission|not authorized',
    'no permission for this in {project}, {zone}: check both, and ask for the role TPU Admin',
  ),
)


def numbers(workers: Iterable[int]) -> str:
  """Numbers of hosts as text, such as `0, 3, 7`."""
  return ', '.join(map(str, workers))


class Node:
  """A node and its hosts, accessed through gcloud.

  A dry run prints the commands and assumes that all of them succeed.
  """

  def __init__(self, state: State, args: argparse.Namespace):
    self.state = state
    self.args = args
    self.dry_run = args.dry_run
    self._there = args.verb not in ('create', 'resume')  # Whether the node exists, in a dry run.
    self._processes: set[subprocess.Popen] = set()

  def say(self, text: str) -> None:
    """Prints progress; as a comment in a dry run, whose output is a shell script."""
    print(f'# {text}' if self.dry_run else text, flush=True)

  def save(self) -> None:
    """Writes the state file."""
    if not self.dry_run:
      text = json.dumps(dataclasses.asdict(self.state), indent=2) + '\n'
      replace_file(self.state.file(), lambda path: path.write_text(text))

  def error(self, status: Exit, message: str) -> LaunchError:
    """An error with the name of the node."""
    return LaunchError(status, f'{self.state.name}: {message}')

  def failure(self, what: str, reason: str) -> LaunchError:
    """The error for a failure reason given by gcloud."""
    for status, pattern, message in KNOWN:
      if re.search(pattern, reason, re.I):
        reason_given = message.format(**dataclasses.asdict(self.state))
        return self.error(status, f'{reason_given} ({reason})')
    return self.error(Exit.OTHER, f'{what} failed: {reason}')

  # Commands, local and on the hosts.

  def execute(
    self, command: Sequence[str], seconds: float | None, assume: str = '', stream: bool = False
  ) -> Result:
    """Runs a command with a time limit; a dry run prints it and returns `assume` as its output.

    With `stream`, the command writes directly to our standard output and error.
    """
    if self.dry_run:
      print(shlex.join(command), flush=True)
      return Result(0, assume)
    output = None if stream else subprocess.PIPE
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': output, 'stderr': output}
    try:
      # A separate session, so that all its child processes can be ended.
      process = subprocess.Popen(
        command, **pipes, text=True, errors='replace', start_new_session=True
      )
    except FileNotFoundError as error:
      raise LaunchError(Exit.USAGE, f'{command[0]} is not on PATH: install it') from error
    with process:
      self._processes.add(process)
      try:
        out, err = process.communicate(timeout=seconds)
        return Result(process.returncode, out or '', err or '')
      except subprocess.TimeoutExpired:
        return Result(TIMED_OUT, '', f'no answer within {seconds:g} s')
      finally:
        _kill(process)
        self._processes.discard(process)

  def gcloud(
    self, kind: str, verb: str, *arguments: str, seconds: float | None = SECONDS['gcloud'], **how
  ) -> Result:
    """Runs `gcloud compute tpus KIND VERB ARGUMENTS` in the zone and project of the node."""
    where = (f'--zone={self.state.zone}', f'--project={self.state.project}', '--quiet')
    command = ('gcloud', 'compute', 'tpus', kind, verb, *arguments, *where)
    return self.execute(command, seconds, **how)

  def ssh(self, worker: int, command: Sequence[str], limit: str = 'host', **how) -> Result:
    """Runs a command on a host."""
    flags = [f'--worker={worker}', *(f'--ssh-flag={option}' for option in SSH_OPTIONS)]
    flags += [f'--command={shlex.join(command)}']
    return self.gcloud(
      'tpu-vm', 'ssh', self.state.name, *flags, **{'seconds': SECONDS[limit], **how}
    )

  def scp(self, worker: int, source: pathlib.Path, target: str) -> Result:
    """Copies a file to a path relative to the home of a host."""
    flags = [f'--worker={worker}', *(f'--scp-flag={option}' for option in SSH_OPTIONS)]
    paths = (str(source), f'{self.state.name}:{target}')
    return self.gcloud('tpu-vm', 'scp', *paths, *flags, seconds=SECONDS['copy'])

  def everywhere(
    self, call: Callable[[int], Result], workers: Iterable[int] | None = None
  ) -> dict[int, Result]:
    """Calls a function for all hosts, or for some, in parallel.

    One gcloud process per host, instead of one with --worker=all, keeps outputs and exit statuses
    separate, limits the time per host, and needs no ssh-agent.
    """
    workers = list(range(self.state.hosts or 1) if workers is None else workers)
    with futures.ThreadPoolExecutor(1 if self.dry_run else PARALLEL) as pool:
      try:
        return dict(zip(workers, pool.map(call, workers), strict=True))
      except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._processes):
          _kill(process)
        raise

  def check(self, what: str, results: dict[int, Result], remedy: str) -> None:
    """Raises an error with the hosts that failed, or with the condition of an unusable node."""
    bad = {worker: result for worker, result in results.items() if result.status}
    if not bad:
      return
    self.require_ready()
    if len(bad) > 1:
      for worker, result in bad.items():
        print(f'worker {worker}: {result.reason}', file=sys.stderr)
    refused = all(result.status == RUN_IS_ALIVE for result in bad.values())
    where = f'worker {numbers(bad)} of {self.state.hosts} ({next(iter(bad.values())).reason})'
    others = 'the others succeeded; ' if len(bad) < len(results) else ''
    raise self.error(
      Exit.ALIVE if refused else Exit.HOSTS, f'{what} failed on {where}: {others}{remedy}'
    )

  def states(self, assume: str) -> list[HostState]:
    """States of all hosts; a dry run assumes the answer `assume`."""
    command = ['bash', RUN_HOST, 'state']
    results = self.everywhere(lambda worker: self.ssh(worker, command, assume=assume))
    return [HostState.of(result) for result in results.values()]

  # The node.

  def describe(self, kind: str) -> dict | None:
    """gcloud's description of the node or of its queued resource; None if it does not exist."""
    invented = {
      'tpu-vm': {'state': 'READY', 'networkEndpoints': [{}] * (self.state.hosts or 1)},
      'queued-resources': {'state': {'state': 'ACTIVE'}} if self.state.queued else None,
    }
    assume = json.dumps(invented[kind] if self._there else None)
    result = self.gcloud(kind, 'describe', self.state.name, '--format=json', assume=assume)
    if result.status and re.search('NOT_FOUND|was not found', result.err):
      return None
    if result.status:
      raise self.failure('describe', result.reason)
    return json.loads(result.out)

  def look(self) -> Look:
    """Queries the condition of the node."""
    # The request first: if it is granted between the two queries, its node is found.
    request = (self.describe('queued-resources') or {}) if self.state.queued else {}
    node = self.describe('tpu-vm') or {}
    request_status = request.get('state', {})
    node_state, request_state = node.get('state', ''), request_status.get('state', '')
    if request_state in OF_REQUEST:
      condition = OF_REQUEST[request_state]
    elif node:
      condition = OF_NODE.get(node_state, Condition.WAITING)
    else:
      condition = Condition.GONE if request_state in ('', 'ACTIVE') else Condition.WAITING
    text = f'node {node_state or "absent"}'
    if self.state.queued:
      text += f', queued resource {request_state or "absent"}'
    if reason := request_status.get('failedData', {}).get('error', {}).get('message'):
      text += f': {reason}'
    # A host has one endpoint per network.
    networks = max(1, len(node.get('networkConfigs', ())))
    return Look(condition, text, len(node.get('networkEndpoints', ())) // networks)

  def require_ready(self) -> None:
    """Raises an error if the node is not ready; updates the number of hosts."""
    look = self.look()
    if look.condition is not Condition.READY:
      raise self.unready(look)
    self.state.hosts = look.hosts
    self.save()

  def unready(self, look: Look) -> LaunchError:
    """The error for a node that is not ready."""
    status, message = look.condition.value
    if look.condition is Condition.FAILED:
      status = self.failure('the request', look.text).status
    return self.error(status, f'{message} ({look.text})')

  def request(self) -> None:
    """Requests the node; removes leftovers of an earlier request first."""
    state = self.state
    if state.made:
      self.remove()
    flags = [f'--accelerator-type={state.type}', *['--spot'] * state.spot, *state.create_flags]
    if state.queued:
      # This only makes the request; the node is created later.
      kind, seconds = 'queued-resources', SECONDS['gcloud']
      flags += [f'--node-id={state.name}', f'--runtime-version={state.runtime}']
    else:
      kind, seconds = 'tpu-vm', self.args.wait * 60
      flags += [f'--version={state.runtime}']
    # From here on the node may exist, even if the command fails.
    state.made = True
    self.save()
    result = self.gcloud(kind, 'create', state.name, *flags, seconds=seconds)
    if result.status == TIMED_OUT:
      raise self.error(
        Exit.WAIT, f'{result.reason} of create: repeat `{self.args.verb}` to continue waiting'
      )
    if result.status:
      error = self.failure('create', result.reason)
      state.made = error.status is Exit.OTHER
      self.save()
      raise error
    self._there = True

  def wait_ready(self) -> None:
    """Waits until the node is ready and accepts commands."""
    begin = reported_at = time.monotonic()
    reported, failures = '', 0
    while True:
      try:
        look, failures = self.look(), 0
      except LaunchError as error:
        # Tolerate short network failures while waiting for hours.
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
        text = f'not ready after {self.args.wait:g} min ({look.text})'
        raise self.error(
          Exit.WAIT, f'{text}: repeat `{self.args.verb}` to continue waiting, or `delete` it'
        )
      if look.text != reported or now - reported_at >= 300:
        self.say(f'{(now - begin) / 60:.0f} min: {look.text}')
        reported, reported_at = look.text, now
      time.sleep(self.args.poll)
    self.state.hosts = look.hosts
    self.save()
    # One host before the others: gcloud creates an ssh key here, and registers it with the node.
    hello = {0: self.ssh(0, ['true'])}
    self.check('ssh', hello, f'the node is ready and billed; repeat `{self.args.verb}`')
    self.say(f'{self.state.name} is ready: {self.state.type}, {look.hosts} hosts')

  def remove(self) -> None:
    """Deletes the node and its queued resource, and waits until both are gone."""
    deadline = time.monotonic() + SECONDS['delete']
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
      result = self.gcloud(kind, 'delete', self.state.name, *flags, seconds=SECONDS['delete'])
      if result.status and not re.search('NOT_FOUND|was not found', result.err):
        raise self.failure('delete', result.reason)
      self._there = False


def _kill(process: subprocess.Popen) -> None:
  """Kills a process and its child processes."""
  if process.poll() is None:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
