"""Coverage-guided fuzzing of the reader of one format.

Usage: fuzz_readers.py FORMAT CORPUS_FOLDER [LIBFUZZER OPTIONS]
"""

import pathlib
import sys

import atheris

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'weights')]

# Our own code and the Python parsers that it calls; instrumenting JAX would take hours.
with atheris.instrument_imports(include=['step_jax', 'zipfile', 'pickletools', 'numpy.lib', 'PIL']):
  from targets import Bench


def main() -> None:
  """Runs until the limit in libFuzzer's options."""
  name, corpus, *options = sys.argv[1:]
  bench = Bench(name)
  (pathlib.Path(corpus) / 'whole').write_bytes(bench.whole)
  atheris.Setup([sys.argv[0], *options, corpus], lambda content: bench.survives(content))
  atheris.Fuzz()


if __name__ == '__main__':
  main()
