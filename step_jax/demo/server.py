"""Serves the demo page."""

from collections.abc import Iterator
import contextlib
import ipaddress
import os
import pathlib
import pkgutil
import signal
import tempfile
import threading

from step_jax import methods
from step_jax.errors import RunError

# Shown without a trained run.
RUN = 'shipped:swatches-step'
HOST = '127.0.0.1'
PORT = 7860


def serve(
  workdir: str | pathlib.Path, host: str = HOST, port: int = PORT, which: str = 'latest'
) -> None:
  """Serves the page of a run until interrupted; prints its address.

  Args:
    workdir: work directory of a trained run.
    host: address to bind to; the default is reachable only from this machine.
    port: port to bind to.
    which: `latest` or `best` checkpoint.

  Raises:
    RunError: no trained stage can translate yet, the port is in use, a proxy blocks the page, or
      the extra `demo` is missing.
  """
  with running(workdir, host, port, which) as address:
    print(f'{address}: open this address in a browser; press Ctrl-C to stop', flush=True)
    if not is_local(host):
      print(f'{host}: anyone who can reach this machine can use the page; there is no password')
    # SIGTERM, like Ctrl-C, leaves the context, which removes the uploads.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
      threading.Event().wait()


@contextlib.contextmanager
def running(
  workdir: str | pathlib.Path, host: str, port: int, which: str = 'latest'
) -> Iterator[str]:
  """Runs the page in a context and yields its address; see `serve`."""
  _refuse_telemetry()
  method, _ = methods.find(workdir)
  try:
    open_page = method.hook('page') or pkgutil.resolve_name('step_jax.demo.page:Page.open')
  except ModuleNotFoundError as error:
    raise RunError(f"demo: {error.name} is missing: pip install -e '.[demo]'") from None
  with tempfile.TemporaryDirectory(prefix='step_jax_demo-') as folder, _uploads(folder):
    page = open_page(workdir, which, pathlib.Path(folder))
    blocks = page.blocks
    try:
      _, address, _ = blocks.launch(
        server_name=host, server_port=port, share=False, inbrowser=False, quiet=True,
        show_error=True, prevent_thread_lock=True, ssr_mode=False, footer_links=[],
        run_history=False, enable_monitoring=False, theme=page.theme, css_paths=page.css,
      )  # fmt: skip
    except OSError:
      raise RunError(
        f'{host}:{port}: cannot be bound to, another program may use it: '
        f'choose another one, as --port {port + 1}'
      ) from None
    except ValueError:  # Gradio could not reach its own page.
      blocks.close(verbose=False)
      raise RunError(
        f'{host}:{port}: the page does not answer this machine: where a proxy is set, set '
        f'NO_PROXY=localhost,{host} too; where the machine is very busy, try again'
      ) from None
    try:
      yield address
    finally:
      blocks.close(verbose=False)


def is_local(host: str) -> bool:
  """Whether `host` is reachable only from this machine."""
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def _refuse_telemetry() -> None:
  """Must run before Gradio is imported."""
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'


@contextlib.contextmanager
def _uploads(folder: str) -> Iterator[None]:
  """Makes Gradio store uploads and images in `folder`, which is removed with the server."""
  before = os.environ.get('GRADIO_TEMP_DIR')
  os.environ['GRADIO_TEMP_DIR'] = folder
  try:
    yield
  finally:
    if before is None:
      del os.environ['GRADIO_TEMP_DIR']
    else:
      os.environ['GRADIO_TEMP_DIR'] = before
