"""The page that goes with an export, for whoever opens its folder first: a model card."""

from collections.abc import Mapping, Sequence
import json

from step_jax.evaluate import results as results_lib

_TEXT = """\
{head}
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

## Training

Stage `{stage}` of the method `{method}`, {step} steps, on the data set `{data}`.

## Scores

{scores}

## Licence

{licence}
"""
# Of the parameters, where nobody has said what it is.
OTHER = 'other'


def text(
  manifest: Mapping,
  usage: Sequence[str],
  results: Mapping | None = None,
  licence: str = OTHER,
) -> str:
  """The page in Markdown, with a head in YAML as the Hugging Face hub reads it.

  Args:
    manifest: of the export.
    usage: command lines of its example.
    results: of `step-jax evaluate`, of the exported checkpoint; None: there are none.
    licence: of the parameters, as the hub abbreviates it.
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
  """The YAML head: every value in JSON, which is YAML too."""
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
    f'On {len(results["pictures"])} images of the split `{results["data"]["split"]}`, with 95 % '
    'intervals. Scores are comparable only between equal hashes.',
    '',
    '| protocol | hash | value | interval | is |',
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
