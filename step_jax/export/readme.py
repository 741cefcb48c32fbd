"""The page that goes with an export, for whoever opens its folder first."""

from collections.abc import Mapping, Sequence

_TEXT = """\
# A picture translator, exported by step_jax {step_jax}

{count} programs in StableHLO, for {platforms}, and their parameters. To run them:

```sh
pip install jax flatbuffers
{usage}
```

or `import load_example; run = load_example.load()`.

| program | takes | gives | where | does |
|---|---|---|---|---|
{rows}

- Symbols in a shape stand for any number, the same in all shapes of a program; for `8*h` any
  multiple of 8 will do.
- `FILE.stablehlo` is what `jax.export.Exported.serialize` writes; `jax.export.deserialize` reads
  it, and `.mlir_module()` of the result is the StableHLO as text. JAX promises to read what was
  written up to six months before; this was written by JAX {jax}, calling convention
  {calling_convention}.
- A program is called as `exported.call(parameters, *inputs)`. `parameters` is a dict of the arrays
  that `manifest.json` lists for it, by their names in `params.safetensors`. The StableHLO takes
  them one by one in that order, then the inputs.
- `manifest.json` has shapes, types, checksums, and the configuration of the training.

Licence: {licence}
"""


def text(manifest: Mapping, usage: Sequence[str]) -> str:
  """The page in Markdown, from the manifest of an export and arguments of its example."""
  rows = [
    f'| `{name}` | {_arrays(program["inputs"])} | {_arrays(program["outputs"])} '
    f'| {"; ".join(program["constraints"])} | {program["does"]} |'
    for name, program in manifest['programs'].items()
  ]
  fields = ('step_jax', 'jax', 'calling_convention', 'licence')
  return _TEXT.format(
    count=len(rows),
    platforms=', '.join(manifest['platforms']),
    rows='\n'.join(rows),
    usage='\n'.join(f'python load_example.py {arguments}' for arguments in usage),
    **{field: manifest[field] for field in fields},
  )


def _arrays(arrays: list[Mapping]) -> str:
  return ', '.join(f'{a["name"]} {a["dtype"]} {_shape(a["shape"])}' for a in arrays)


def _shape(shape: list) -> str:
  return f'`[{", ".join(map(str, shape))}]`'
