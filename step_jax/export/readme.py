"""The model card of an export."""

from collections.abc import Mapping, Sequence
import json

from step_jax.evaluate import results as results_lib

_TEXT = """\
{head}
# An image translator, exported by step_jax {step_jax}

{count} programs in StableHLO for {platforms}, with their parameters. To run them:

```sh
pip install jax flatbuffers
{usage}
```

or, in Python, `import load_example; run = load_example.load()`.

| program | inputs | outputs | constraints | description |
|---|---|---|---|---|
{rows}

- Symbols in shapes are arbitrary sizes, the same in all shapes of a program; `8*h` is any multiple
  of 8.
- `FILE.stablehlo` was written by `jax.export.Exported.serialize`. `jax.export.deserialize` reads
  it, and `.mlir_module()` of the result is the StableHLO as text. JAX guarantees to read files for
  six months. These were written by JAX {jax}, calling convention {calling_convention}.
- Call a program with `exported.call(parameters, *inputs)`. `parameters` is a dict of the arrays
  that `manifest.json` lists for it, with their names in `params.safetensors`. The StableHLO itself
  takes them separately in that order, followed by the inputs.
- `manifest.json` has shapes, types, checksums, and the configuration of the training.

## Training

Stage `{stage}` of the method `{method}`, trained for {step} steps on the data set `{data}`.

## Scores

{scores}

## Licence

{licence}
"""
# Licence of the parameters if it is not given.
OTHER = 'other'


def text(
  manifest: Mapping,
  usage: Sequence[str],
  results: Mapping | None = None,
  licence: str = OTHER,
) -> str:
  """The model card in Markdown, with a YAML head for the Hugging Face hub.

  Args:
    manifest: manifest of the export.
    usage: command lines of its example.
    results: results of `step-jax evaluate` for the exported checkpoint; None: there are none.
    licence: licence of the parameters, as an identifier of the hub.
  """
  rows = [
    f'| `{name}` | {_arrays(program["inputs"])} | {_arrays(program["outputs"])} '
    f'| {"; ".join(program["constraints"])} | {program["does"]} |'
    for name, program in manifest['programs'].items()
  ]
  fields = ('step_jax', 'jax', 'calling_convention', 'licence', 'stage', 'method', 'step')
  return _TEXT.format(
    head=_head(manifest, results, licence),
    data=_data(manifest),
    scores=_scores(results) if results else 'None: `step-jax evaluate` was not run before export.',
    count=len(rows),
    platforms=', '.join(manifest['platforms']),
    rows='\n'.join(rows),
    usage='\n'.join(f'python load_example.py {arguments}' for arguments in usage),
    **{field: manifest[field] for field in fields},
  )


def _data(manifest: Mapping) -> str:
  """Name of the data set that the run was trained on."""
  return str(manifest['config'].get('data.path', '')) or 'unknown'


def _head(manifest: Mapping, results: Mapping | None, licence: str) -> str:
  """The YAML head; values are JSON, which is valid YAML."""
  data = _data(manifest)
  head = {
    'library_name': 'step_jax',
    'pipeline_tag': 'image-to-image',
    'license': licence,
    **({'license_name': 'see-readme'} if licence == OTHER else {}),
    'tags': ['jax', 'stablehlo', 'image-to-image', manifest['method']],
  }
  if results:
    metrics = [
      {'type': name, 'name': f'{score["title"]} ({score["hash"]})', 'value': score['value']}
      for name, score in results['scores'].items()
      if score['value'] is not None
    ]
    entry = {
      'task': {'type': 'image-to-image'},
      'dataset': {'type': data, 'name': data, 'split': results['data']['split']},
      'metrics': metrics,
    }
    head['model-index'] = [{'name': f'{manifest["method"]} {data}', 'results': [entry]}]
  lines = [f'{name}: {json.dumps(value)}' for name, value in head.items()]
  return '\n'.join(['---', *lines, '---', ''])


def _scores(results: Mapping) -> str:
  """The scores as a table."""
  lines = [
    f'Measured on {len(results["pictures"])} images of the split `{results["data"]["split"]}`, '
    'with 95 % intervals. Compare only scores with equal hashes.',
    '',
    '| protocol | hash | value | interval | description |',
    '|---|---|---:|---|---|',
  ]
  for scores in results_lib.by_group(results).values():
    for name, score in scores.items():
      value, interval = results_lib.texts(score)
      better = f' ({score["better"]} is better)' if score['better'] else ''
      lines.append(
        f'| {name} | {score["hash"]} | {value} | {interval} | {score["title"]}{better} |'
      )
  return '\n'.join(lines)


def _arrays(arrays: list[Mapping]) -> str:
  return ', '.join(f'{a["name"]} {a["dtype"]} {_shape(a["shape"])}' for a in arrays)


def _shape(shape: list) -> str:
  return f'`[{", ".join(map(str, shape))}]`'
