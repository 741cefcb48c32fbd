"""Every verb with a stand-in for gcloud: success, failure, and continuation by the next call."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import types

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
WAITS = 'WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n'
SLEEP = ('--', 'sleep', '60')
QUOTA = (
  'ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit '
  "'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 in zone z."
)
STOCK_OUT = """Create request issued for: [t1]
ERROR: (gcloud.compute.tpus.tpu-vm.create) {
  "code": 8,
  "message": "There is no more capacity in the zone \\"z\\"; you can try in another zone [EID: 0x1]"
}"""
API_OFF = (
  'ERROR: (gcloud.x) PERMISSION_DENIED: Cloud TPU API has not been used in project p before or it '
  'is disabled.'
)
DROPPED = (
  'ssh: connect to host 10.0.0.3 port 22: Connection timed out\n'
  'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255].'
)


def until(true, seconds=5):
  """Waits for a condition in the background."""
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.02)


def ended(cloud, status):
  """Whether the run has ended with this status on both hosts."""
  files = [cloud.home(worker) / 'step_jax_tpu/run/exit' for worker in range(2)]
  return lambda: all(file.exists() and file.read_text() == f'{status}\n' for file in files)


def kept(cloud):
  return json.loads((cloud.state / 't1.json').read_text())


# All verbs in sequence.


def test_all_verbs_in_a_row(cloud):
  cloud.set(coming=WAITS)
  settings = ('--project=p', '--zone=z', '--type=v5litepod-16', '--spot', '--queued')
  out = cloud.ok('create', *settings, '--', '--network=lab')
  assert 'queued resource WAITING_FOR_RESOURCES' in out and 't1 is ready: v5litepod-16' in out
  (made,) = cloud.calls('queued-resources create')
  assert (
    made.split()[5:]
    == (
      '--accelerator-type=v5litepod-16 --spot --network=lab --node-id=t1 '
      '--runtime-version=v2-alpha-tpuv5-lite --zone=z --project=p --quiet'
    ).split()
  )
  # Later verbs need only the name.
  assert '16 chips on 2 hosts' in cloud.ok('setup')
  assert 'is on the hosts' in cloud.ok('copy')
  script = 'echo "in $(basename "$PWD")"; sleep 60'
  assert 'alive on every host' in cloud.ok('run', '--', 'bash', '-c', script)
  table = cloud.ok('status')
  assert table.count('alive') == 2 and table.count('in code') == 2
  assert 'in code' in cloud.ok('logs', '--worker=1')
  assert cloud.ok('stop').count('ended with status 143') == 2
  assert cloud.ok('status').count('stopped  143') == 2
  assert 'alive on every host' in cloud.ok('resume')
  assert 'deleted' in cloud.ok('delete', '--yes')
  assert not list(cloud.state.iterdir()) and not (cloud.folder / 'request').exists()


def test_the_script(cloud, checkout):
  def call(*arguments):
    command = [checkout.folder / 'launch' / 'tpu_vm.sh', *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cloud.folder)

  made = call('create', '--name=t1', '--project=p', '--zone=z', '--type=v4-8')
  assert (made.returncode, made.stderr) == (0, '')
  failed = call('resume', '--name=t1')
  assert failed.returncode == 2 and failed.stderr.startswith('tpu_vm: t1: no command')


def test_commands_arrive_as_they_were_given(cloud):
  cloud.ready()
  words = ['a b', "it's", '"x"', '$HOME `id` \\', 'two\nlines', '', '*', '--', 'ü', '--name=t9']
  script = 'printf "%s\\0" "$STEP_JAX_BUCKET" "$@" >"$HOME/arrived"'
  cloud.ok('run', '--bucket=gs://b', '--', 'bash', '-c', script, 'bash', *words)
  until(ended(cloud, 0))
  for worker in range(2):
    arrived = (cloud.home(worker) / 'arrived').read_text().split('\0')
    assert arrived == ['gs://b', *words, '']


def test_resume_repeats_the_same_command(cloud):
  cloud.ready()
  cloud.ok('run', '--', 'bash', '-c', 'echo "$0" >>"$HOME/said"; exit 3', "it's\ntwo")
  until(ended(cloud, 3))
  cloud.ok('resume')
  until(lambda: (cloud.home(1) / 'said').read_text() == "it's\ntwo\n" * 2)


# create.


def test_a_plain_node_is_made_at_once(cloud):
  cloud.create('--version=other')
  (made,) = cloud.calls('tpu-vm create')
  assert '--version=other' in made and '--spot' not in made
  assert not cloud.calls('queued-resources create')
  assert 'already requested: node READY' in cloud.ok('create')


@pytest.mark.parametrize(
  ('text', 'status', 'message'),
  [
    (QUOTA, 3, 'the quota of p does not allow v5litepod-16 in z: request more'),
    (STOCK_OUT, 4, 'no capacity for v5litepod-16 in z now: try later, another --zone, or --queued'),
    ('ERROR: (gcloud.x) ALREADY_EXISTS: Resource t1', 5, 'use another --name'),
    ('ERROR: (gcloud.x) HttpError 403: Permission denied on z', 6, 'ask for the role TPU Admin'),
    (API_OFF, 6, 'gcloud services enable tpu.googleapis.com --project=p'),
    ('ERROR: (gcloud.x) You do not have an active account', 6, 'gcloud auth login'),
    ('ERROR: (gcloud.x) INTERNAL: try\nagain', 1, 'create failed: INTERNAL: try again'),
  ],
)
def test_create_reports_what_to_do(cloud, text, status, message):
  cloud.set(coming=WAITS)
  cloud.fault('* create *', text)
  # Both request types report the same.
  queued = ['--queued'] if status in (3, 4) else []
  flags = ('--project=p', '--zone=z', '--type=v5litepod-16', *queued)
  assert message in cloud.refuse(status, 'create', *flags)
  cloud.ok('create')


def test_after_no_capacity_another_zone_can_be_tried(cloud):
  cloud.fault('* create *', STOCK_OUT)
  cloud.refuse(4, 'create', '--project=p', '--zone=z', '--type=v4-8')
  cloud.ok('create', '--zone=y')
  assert '--zone=y' in cloud.calls('tpu-vm create')[1]
  assert 'was created with another zone' in cloud.refuse(2, 'create', '--zone=x')


def test_nodes_of_others_are_not_changed(cloud):
  cloud.set(node='READY\n', request='ACTIVE\n')
  for flags in ((), ('--queued',)):
    line = cloud.refuse(5, 'create', '--project=p', '--zone=z', '--type=v4-8', *flags)
    assert 'already exists and was not created from here' in line
  assert not cloud.calls('create') and not cloud.calls('delete')
  # The node is ours, but was created from another machine.
  (cloud.folder / 'workers/0').mkdir(parents=True)
  (cloud.folder / 'workers/1').mkdir()
  cloud.ok('setup', '--project=p', '--zone=z')


def test_waiting_has_a_limit_and_can_be_continued(cloud):
  flags = ('--project=p', '--zone=z', '--type=v6e-8', '--queued')
  line = cloud.refuse(8, 'create', *flags, '--wait=0.001')
  assert 'queued resource WAITING_FOR_RESOURCES): repeat `create` to continue waiting' in line
  assert 'is not ready yet' in cloud.refuse(8, 'status')
  cloud.set(coming='PROVISIONING\nACTIVE\n')
  assert 'already requested' in cloud.ok('create')
  assert len(cloud.calls('queued-resources create')) == 1


def test_create_that_hangs_is_ended(cloud):
  cloud.fault('* create *', seconds=60)
  flags = ('--project=p', '--zone=z', '--type=v4-8')
  line = cloud.refuse(8, 'create', *flags, '--wait=0.003')
  assert 'no answer within 0.18 s of create: repeat `create` to continue waiting' in line
  # The node was created after all, a little later.
  cloud.set(node='CREATING\n')
  cloud.refuse(8, 'create', '--wait=0.0001')
  cloud.set(node='READY\n')
  (cloud.folder / 'workers/0').mkdir(parents=True)
  cloud.ok('create')
  assert len(cloud.calls('tpu-vm create')) == 1


def test_a_rejected_request_is_repeated(cloud):
  cloud.set(coming='WAITING_FOR_RESOURCES\nFAILED\n')
  reason = "Quota 'TPUV5s' exhausted. Limit 4 in zone z"
  cloud.set(details=f', "failedData": {{"error": {{"message": "{reason}"}}}}')
  flags = ('--project=p', '--zone=z', '--type=v5litepod-16', '--queued')
  line = cloud.refuse(3, 'create', *flags)
  assert 'was not granted: `create` requests it again' in line and reason in line
  cloud.set(coming='FAILED\n' + WAITS)
  cloud.ok('create')
  assert len(cloud.calls('queued-resources create')) == 2


@pytest.mark.parametrize('failures', [4, 5])
def test_waiting_survives_network_failures(cloud, failures):
  cloud.fault('*tpu-vm describe*', 'ERROR: (gcloud.x) NOT_FOUND')
  cloud.fault('*tpu-vm describe*', 'ERROR: (gcloud.x) connection reset', times=failures)
  flags = ('--project=p', '--zone=z', '--type=v5litepod-16')
  if failures == 5:
    assert 'describe failed: connection reset' in cloud.refuse(1, 'create', *flags)
  cloud.ok('create', *flags)
  assert len(cloud.calls('tpu-vm create')) == 1


def test_interrupting_keeps_the_request(cloud, checkout, monkeypatch):
  def interrupt(_):
    raise KeyboardInterrupt

  flags = ('--project=p', '--zone=z', '--type=v5litepod-16', '--queued')
  with monkeypatch.context() as patch:
    ours = types.SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)
    patch.setattr(checkout.tpu_node, 'time', ours)
    assert 'repeat `create` to continue' in cloud.refuse(130, 'create', *flags)
  cloud.set(coming='ACTIVE\n')
  cloud.ok('create')
  assert len(cloud.calls('queued-resources create')) == 1


def test_a_host_that_does_not_accept_ssh_yet(cloud):
  cloud.fault('*--command=true*', DROPPED, 255)
  line = cloud.refuse(9, 'create', '--project=p', '--zone=z', '--type=v4-8')
  assert 'ssh failed on worker 0 of 2 (ssh: connect to host 10.0.0.3 port 22' in line
  cloud.ok('create')


# setup and copy.


def test_one_host_of_eight_fails_in_setup(cloud):
  cloud.hosts(8)
  cloud.create()
  (cloud.home(3) / 'pip_fails').touch()
  line = cloud.refuse(9, 'setup')
  assert 'setup failed on worker 3 of 8 (pip could not install .[tpu]' in line
  assert 'the others succeeded; repeat `setup`' in line
  assert 'worker 3 is not set up: `setup`' in cloud.refuse(9, 'run', *SLEEP)
  (cloud.home(3) / 'pip_fails').unlink()
  cloud.ok('setup')
  tries = [len((cloud.home(w) / 'pip').read_text().splitlines()) for w in range(8)]
  assert tries == [1, 1, 1, 2, 1, 1, 1, 1]
  assert len(cloud.calls('tpu-vm scp')) == 8


def test_setup_reports_what_a_host_lacks(cloud):
  cloud.create('--bucket=gs://b')
  for lack, message in (
    ('no_chips', 'no chips: is another program using them'),
    ('no_bucket', 'cannot write to gs://b'),
  ):
    (cloud.home(1) / lack).touch()
    assert message in cloud.refuse(9, 'setup')
    (cloud.home(1) / lack).unlink()
  assert 'set up: 16 chips on 2 hosts' in cloud.ok('setup')


def test_setup_sends_no_code_to_hosts_that_have_it(cloud):
  cloud.ready()
  before = len(cloud.calls('tpu-vm scp'))
  cloud.ok('setup')
  assert len(cloud.calls('tpu-vm scp')) == before
  cloud.ok('copy')
  assert len(cloud.calls('tpu-vm scp')) == before + 2


def test_hosts_do_not_run_different_code(cloud):
  cloud.ready()
  cloud.ok('run', '--', 'false')
  for goes_on in ('copy', 'resume'):
    (cloud.home(1) / 'step_jax_tpu/run/revision').write_text('old\n')
    cloud.fault('*scp*--worker=1*', 'ERROR: (gcloud.x) [/usr/bin/scp] exited with return code [1].')
    assert 'copy failed on worker 1 of 2 ([/usr/bin/scp] exited' in cloud.refuse(9, 'copy')
    assert 'worker 1 has old code: `copy`' in cloud.refuse(9, 'run', *SLEEP)
    cloud.ok(goes_on)
    assert cloud.read(1, 'run/revision') == cloud.read(0, 'run/revision')


def test_changes_are_sent_only_when_told(cloud, checkout):
  cloud.ready()
  head = cloud.read(0, 'run/revision').strip()
  added, changed = checkout.folder / 'added.txt', checkout.folder / 'setup.py'
  text = changed.read_text()
  try:
    added.write_text('new')
    changed.write_text(text + '# More.\n')
    assert '(setup.py and 1 more): commit them, or' in cloud.refuse(2, 'copy')
    cloud.ok('copy', '--dirty')
    assert cloud.read(1, 'code/added.txt') == 'new'
    assert cloud.read(1, 'code/setup.py').endswith('# More.\n')
    assert cloud.read(1, 'run/revision').strip() == f'{head}-dirty'
  finally:
    added.unlink()
    changed.write_text(text)
  cloud.ok('copy')
  assert not (cloud.home(1) / 'step_jax_tpu/code/added.txt').exists()


# run, status, logs, stop.


def test_one_run_at_a_time(cloud):
  cloud.ready()
  cloud.ok('run', *SLEEP)
  for verb in (('run', *SLEEP), ('copy',), ('setup',)):
    line = cloud.refuse(10, *verb)
    assert 'a run is alive on worker 0, 1: `stop` it first' in line
  assert 'is alive on every host' in cloud.ok('resume')
  cloud.ok('stop')
  cloud.ok('copy')
  cloud.ok('run', *SLEEP)


def test_one_host_of_eight_does_not_start(cloud):
  cloud.hosts(8)
  cloud.ready()
  cloud.fault('*--worker=5*run_host.sh start*', DROPPED, 255)
  line = cloud.refuse(9, 'run', *SLEEP)
  assert 'run failed on worker 5 of 8 (ssh: connect' in line
  assert 'the others succeeded; `resume` starts it where it is missing, `stop` ends it' in line
  pids = [cloud.read(w, 'run/pid') for w in range(8) if w != 5]
  assert 'a run is alive on worker 0, 1, 2, 3, 4, 6, 7' in cloud.refuse(10, 'run', *SLEEP)
  cloud.ok('resume')
  assert cloud.ok('status').count('alive') == 8
  assert {cloud.read(w, 'run/id') for w in range(8)} == {kept(cloud)['run'] + '\n'}
  assert pids == [cloud.read(w, 'run/pid') for w in range(8) if w != 5]


def test_a_command_that_gcloud_repeats_starts_once(cloud):
  cloud.ready()
  cloud.fault('*run_host.sh start*', twice=True, times=4)
  cloud.ok('run', '--', 'bash', '-c', 'echo x >>"$HOME/started"; sleep 60')
  cloud.ok('stop')
  cloud.ok('run', '--', 'bash', '-c', 'echo x >>"$HOME/started"')
  until(ended(cloud, 0))
  assert (cloud.home(1) / 'started').read_text() == 'x\nx\n'


def test_a_host_that_does_not_answer(cloud, checkout, monkeypatch):
  cloud.ready()
  cloud.ok('run', *SLEEP)
  with monkeypatch.context() as patch:
    patch.setitem(checkout.tpu_node.SECONDS, 'host', 0.3)
    cloud.fault('*--worker=1*run_host.sh state*', seconds=60)
    status, out, err = cloud.call('status')
    assert status == 9 and 'the run has problems on worker 1' in err
    assert 'unreachable' in out and 'no answer within 0.3 s' in out and 'alive' in out
  cloud.ok('status')


def test_if_one_host_fails_resume_restarts_all(cloud):
  cloud.ready()
  cloud.ok('run', '--', 'bash', '-c', '[[ $HOME != */1 || -e $HOME/well ]] || exit 3; sleep 60')
  until(lambda: (cloud.home(1) / 'step_jax_tpu/run/exit').exists())
  status, out, err = cloud.call('status')
  assert status == 9 and 'the run has problems on worker 1: see `logs --worker 1`' in err
  assert 'alive' in out and 'ended  3' in out
  (cloud.home(1) / 'well').touch()
  assert 'worker 0: ended with status 143' in cloud.ok('resume')
  assert cloud.ok('status').count('alive') == 2


def test_a_successful_run_is_not_repeated(cloud):
  cloud.ready()
  cloud.ok('run', '--', 'true')
  until(ended(cloud, 0))
  assert cloud.ok('status').count('ended  0') == 2
  assert 'nothing to resume' in cloud.ok('resume')
  # A run that was stopped can be resumed, even if it saved and exited with 0.
  cloud.ok('run', '--', 'bash', '-c', 'trap "exit 0" TERM; while :; do sleep 0.05; done')
  cloud.ok('stop')
  assert 'is alive on every host' in cloud.ok('resume')


def test_a_host_that_was_restarted(cloud):
  cloud.ready()
  cloud.ok('run', *SLEEP)
  command = int(cloud.read(1, 'run/pid'))
  status = pathlib.Path(f'/proc/{command}/status').read_text()
  os.kill(int(re.search(r'PPid:\t(\d+)', status)[1]), signal.SIGKILL)
  os.kill(command, signal.SIGKILL)
  status, out, err = cloud.call('status')
  assert status == 9 and 'problems on worker 1' in err and 'lost' in out
  cloud.ok('resume')
  assert cloud.ok('status').count('alive') == 2


def test_stop_kills_what_does_not_save(cloud):
  cloud.ready()
  cloud.ok('run', '--', 'bash', '-c', 'trap "" TERM; echo up; while :; do sleep 0.05; done')
  until(lambda: cloud.read(1, 'run/log').endswith('up\n'))
  assert cloud.ok('stop', '--grace=0').count('killed: not saved within 0 s') == 2
  assert cloud.ok('status').count('stopped  137') == 2
  assert 'no run was alive' in cloud.ok('stop')


def test_stop_reaches_those_that_answer(cloud):
  cloud.ready()
  cloud.ok('run', *SLEEP)
  cloud.fault('*--worker=0*', DROPPED, 255, times=2)
  assert 'stop failed on worker 0 of 2' in cloud.refuse(9, 'stop')
  status, out, _ = cloud.call('status')
  assert status == 0 and 'alive' in out and 'stopped  143' in out
  cloud.ok('stop')


def test_logs(cloud):
  cloud.ready()
  status, _, err = cloud.call('logs')
  assert status == 9 and 'run_host: no run has been started here' in err
  cloud.ok('run', '--', 'bash', '-c', 'echo one; sleep 0.2; echo two')
  # Follows until the run ends.
  assert cloud.ok('logs', '--follow', '--worker=1').splitlines()[-2] == 'two'
  out = cloud.ok('logs', '--worker=all', '--lines=1')
  assert out.count('ended with status 0') == 2 and '== worker 1' in out
  assert 'all or a number below 2' in cloud.refuse(2, 'logs', '--worker=2')
  cloud.ok('run', '--', 'false')
  assert 'two' in cloud.read(0, 'run/log.1')


# Pre-emption.


@pytest.mark.parametrize(
  ('flags', 'states'),
  [
    (('--spot', '--queued'), {'node': 'READY\n', 'request': 'SUSPENDING\n'}),
    (('--spot',), {'node': 'PREEMPTED\n'}),
  ],
)
def test_resume_after_preemption(cloud, checkout, flags, states):
  cloud.hosts(1)
  cloud.ready(*flags)
  cloud.ok('run', '--', 'bash', '-c', 'echo "$0" >"$HOME/said"; sleep 60', 'a  b')
  revision = cloud.read(0, 'run/revision')
  cloud.take_away(**states)
  for verb in (('status',), ('run', *SLEEP), ('logs',), ('stop',), ('setup',), ('copy',)):
    assert 'was preempted' in cloud.refuse(7, *verb)
  # Resume uses the code that was sent, even if the checkout has changed.
  changed = checkout.folder / 'added.txt'
  changed.touch()
  try:
    # The states that resume sees: first, while the node is being deleted, then while it waits.
    taken = 'SUSPENDING\nSUSPENDING\n' if 'SUSPENDING\n' in states.values() else ''
    cloud.set(coming=taken + 'SUSPENDED\n' + WAITS if 'request' in states else '')
    out = cloud.ok('resume')
  finally:
    changed.unlink()
  assert 'recreating the node' in out and 'is alive on every host' in out
  assert cloud.read(0, 'run/revision') == revision
  until(lambda: (cloud.home(0) / 'said').exists())
  assert (cloud.home(0) / 'said').read_text() == 'a  b\n'


@pytest.mark.parametrize('state', ['PREEMPTED', 'TERMINATED'])
def test_preemption_during_a_call(cloud, state):
  cloud.ready('--spot')
  cloud.fault('*--worker=1*run_host.sh start*', DROPPED, 255, node=state)
  assert 'was preempted: `resume` recreates it' in cloud.refuse(7, 'run', *SLEEP)
  cloud.keep_image()
  cloud.on_hosts('stop', '0')
  cloud.ok('resume')
  assert cloud.ok('status').count('alive') == 2


def test_resume_without_capacity_can_be_repeated(cloud):
  cloud.hosts(1)
  cloud.ready('--spot')
  cloud.ok('run', *SLEEP)
  cloud.take_away(node='PREEMPTED\n')
  cloud.keep_image()
  cloud.fault('* create *', STOCK_OUT)
  assert 'no capacity' in cloud.refuse(4, 'resume')
  assert 'does not exist' in cloud.refuse(7, 'status')
  cloud.ok('resume', '--zone=y')
  assert cloud.calls('tpu-vm create', '--zone=y')


def test_resume_after_the_node_was_deleted_by_hand(cloud):
  cloud.hosts(1)
  cloud.ready()
  cloud.ok('run', *SLEEP)
  cloud.take_away()
  shutil.rmtree(cloud.folder / 'workers')
  (cloud.folder / 'node').unlink()
  cloud.keep_image()
  cloud.ok('resume')


def test_a_stopped_node_is_not_touched(cloud):
  cloud.hosts(1)
  cloud.ready()
  cloud.ok('run', *SLEEP)
  cloud.take_away(node='STOPPED\n')
  assert 'start it with gcloud compute tpus tpu-vm start' in cloud.refuse(1, 'resume')
  cloud.set(node='READY\n')
  cloud.ok('resume')


# delete.


def test_delete_asks(cloud, monkeypatch):
  cloud.hosts(1)
  cloud.create()
  assert 'give --yes to delete' in cloud.refuse(2, 'delete')
  monkeypatch.setattr('sys.stdin.isatty', lambda: True, raising=False)
  monkeypatch.setattr('builtins.input', lambda _: 'n')
  assert 'was not deleted' in cloud.refuse(2, 'delete')
  monkeypatch.setattr('builtins.input', lambda _: 'y')
  cloud.ok('delete')
  assert not (cloud.folder / 'node').exists() and not list(cloud.state.iterdir())
  # Deleting a node that is already gone is not an error.
  cloud.ok('delete', '--yes', '--project=p', '--zone=z')


def test_delete_that_fails_forgets_nothing(cloud):
  cloud.set(coming=WAITS)
  cloud.create('--queued')
  cloud.fault('*delete*', 'ERROR: (gcloud.x) PERMISSION_DENIED: no')
  assert 'TPU Admin' in cloud.refuse(6, 'delete', '--yes')
  assert kept(cloud)['made']
  cloud.set(request='SUSPENDING\n', coming='SUSPENDING\nSUSPENDED\n')
  cloud.ok('delete', '--yes')
  assert '--force' in cloud.calls('queued-resources delete')[1]


# Settings and dry run.


def test_settings_come_from_the_environment_and_flags(cloud, monkeypatch):
  assert '--project is missing: give it, or set STEP_JAX_TPU_PROJECT' in cloud.refuse(2, 'create')
  for name, value in {'PROJECT': 'p', 'ZONE': 'z', 'TYPE': 'v9-8', 'SPOT': '1'}.items():
    monkeypatch.setenv(f'STEP_JAX_TPU_{name}', value)
  assert '--version is missing' in cloud.refuse(2, 'create')
  cloud.ok('create', '--type=v6e-8')
  (made,) = cloud.calls('tpu-vm create')
  assert '--zone=z' in made and '--spot' in made and '--version=v2-alpha-tpuv6e' in made
  # The settings that a node was created with take precedence over the environment.
  monkeypatch.setenv('STEP_JAX_TPU_ZONE', 'elsewhere')
  cloud.ok('setup')
  assert not cloud.calls('elsewhere')


def test_wrong_use(cloud):
  assert 'use lowercase letters' in cloud.refuse(2, 'status', '--name=../x')
  flags = ('--project=p', '--zone=z')
  assert 'run needs a command' in cloud.refuse(2, 'run', *flags)
  assert 'takes nothing after --' in cloud.refuse(2, 'stop', *flags, '--', 'x')
  assert 'no command has been run' in cloud.refuse(2, 'resume', *flags)
  assert 'does not exist: `create` makes it' in cloud.refuse(7, 'setup', *flags)
  cloud.state.mkdir()
  (cloud.state / 't1.json').write_text('{')
  assert 'is damaged' in cloud.refuse(2, 'status')


def test_without_gcloud(cloud, monkeypatch):
  monkeypatch.setenv('PATH', '/nowhere')
  assert 'gcloud is not on PATH' in cloud.refuse(2, 'status', '--project=p', '--zone=z')


def test_a_state_file_is_written_atomically(checkout, tmp_path):
  path = tmp_path / 'a' / 'x.json'
  checkout.tpu_node.replace_file(path, lambda new: new.write_text('old'))

  def die(new):
    new.write_text('half')
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    checkout.tpu_node.replace_file(path, die)
  assert [p.read_text() for p in path.parent.iterdir()] == ['old']


def test_a_dry_run_prints_all_and_does_nothing(cloud):
  settings = ('--project=p', '--zone=z', '--type=v5litepod-16', '--queued', '--dry-run')
  expected = {
    'create': 'gcloud compute tpus queued-resources create t1',
    'setup': 'setup_host.sh install',
    'copy': 'gcloud compute tpus tpu-vm scp',
    'run': """python -c '"'"'print("a b")'"'"'' --zone=z""",
    'logs': 'run_host.sh log 100',
    'status': 'run_host.sh state',
    'stop': 'run_host.sh stop 180',
    'delete': 'gcloud compute tpus queued-resources delete t1 --force',
  }
  for verb, command in expected.items():
    rest = ('--', 'python', '-c', 'print("a b")') if verb == 'run' else ()
    out = cloud.ok(verb, *settings, *rest)
    assert command in out
    assert all(line.startswith(('gcloud ', 'git ', '# ')) for line in out.splitlines()), out
  assert not cloud.calls() and not cloud.state.exists()


def test_a_dry_run_of_resume_shows_every_step(cloud):
  cloud.ready()
  cloud.ok('run', *SLEEP)
  before = kept(cloud), len(cloud.calls())
  out = cloud.ok('resume', '--dry-run')
  for step in ('tpu-vm create', '--worker=1', 'run_host.sh adopt', 'setup_host.sh', 'sleep 60'):
    assert step in out
  assert (kept(cloud), len(cloud.calls())) == before


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='shellcheck is not installed')
def test_shellcheck_finds_nothing(checkout):
  launch = checkout.folder / 'launch'
  scripts = [*launch.glob('*.sh'), *launch.glob('*.sbatch')]
  stand_ins = [path for path in (HERE / 'stand_ins').iterdir() if path.is_file()]
  assert len(scripts) > 6 and stand_ins
  subprocess.run(['shellcheck', '--external-sources', *scripts, *stand_ins], check=True, cwd=ROOT)
