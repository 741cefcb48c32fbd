"""`step-jax VERB`: everything that a run needs, from images to a report.

Each verb is a function that adds its parser, in the module of its kind. Nothing imports JAX before
a verb runs.
"""

import argparse
from collections.abc import Sequence

from step_jax import main as main_lib
from step_jax.cli import arguments, datasets, machine, scoring, training, using

_DESCRIPTION = """\
Multi-modal image-to-image translation: one input, many plausible outputs, controlled by a style.

Train the stages of a run in order, in the same work directory. The stages of StEP are:
  step-jax train pretrain  --data MY_PICTURES --workdir runs/mine
  step-jax train translate --workdir runs/mine
  step-jax train finetune  --workdir runs/mine
  step-jax train mapper    --workdir runs/mine
Then use the run:
  step-jax evaluate  --workdir runs/mine
  step-jax translate INPUT.png --style STYLE.png --workdir runs/mine --out out
  step-jax report    --workdir runs/mine
  step-jax demo      --workdir runs/mine

Re-run an interrupted command to resume it.
To try all steps on synthetic images: step-jax quickstart"""

# Verb -> what adds its parser, in the order of the help.
VERBS = {
  'quickstart': training.add_quickstart,
  'data': datasets.add_data,
  'prepare': datasets.add_prepare,
  'train': training.add_train,
  'evaluate': scoring.add_evaluate,
  'translate': using.add_translate,
  'codes': using.add_codes,
  'demo': using.add_demo,
  'report': scoring.add_report,
  'reproduce': training.add_reproduce,
  'weights': machine.add_weights,
  'bench': scoring.add_bench,
  'export': using.add_export,
  'doctor': machine.add_doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
  """The console script; returns the exit status."""
  main_lib.setup_terminal()
  args = parse(argv)
  return main_lib.guarded(lambda: args.run(args))


def parser() -> argparse.ArgumentParser:
  """The parser of all verbs."""
  root = arguments.Parser(
    prog='step-jax',
    description=_DESCRIPTION,
    formatter_class=arguments.Formatter,
    allow_abbrev=False,
  )
  verbs = root.add_subparsers(dest='verb', required=True, metavar='VERB')
  for name, add in VERBS.items():
    add(verbs, name)
  return root


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """The arguments of a command; `run` is what to call with them. Exits on arguments of no verb."""
  of_verbs = parser()
  args, rest = of_verbs.parse_known_args(argv)
  if rest and not getattr(args, 'takes_fields', False):
    of_verbs.error(f'unknown argument {rest[0]!r} of {args.verb}')
  args.fields = rest
  return args
