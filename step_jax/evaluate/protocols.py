"""Every number that this project reports, and exactly what it is.

A protocol has an id, which says what was measured, and a definition, which says everything else
that decides the number: pictures compared, range, resizing, weights, data. Its hash stands in every
`results.json`, and numbers may stand in one column only where their hashes agree.
`docs/protocols.md` is made from this file.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json

GROUPS = {
  'reconstruction': 'How well pictures are rebuilt from their own style (the oracle test of StEP).',
  'style': 'Whether outputs carry the given style and keep their content, and what codes know.',
  'diversity': 'How different the translations of one input are.',
  'realism': 'How far translations are from real pictures as a distribution.',
}

_INTRODUCTION = """\
# Protocols

Every number that `step-jax evaluate` writes to `results.json` names the protocol that made it, by
an id and by a hash of its whole definition. The definitions below are completed by what is known
when a run is scored: the pictures (their number, split, SHA-256 of their pixels), SHA-256 of the
weights, the taps of a feature net, the seed and the sampler of whatever is drawn. Change any of
these and the hash changes; `step-jax evaluate --compare` puts numbers side by side only where
hashes agree. Where a rule decides the sampler, what it chose in a run, and the stage, step and
digest of the encoder that the mapper was fitted to, stand beside the score (`drawn_by`): these
belong to the run that is measured, not to how it is measured. Intervals are 95 % bootstrap
intervals over pictures (1000 resamples), but those of kernel distances are 1.96 jackknife standard
errors; Fréchet distances, NDB and JSD have none.

Numbers are the same on any number of devices, digit for digit; on CPUs as long as XLA has as many
threads, which the environment variable `NPROC` sets (else it is the number of cores, or of devices
where these are more).

Blanks: `{lpips}` is the net and version of LPIPS, `lpips-alex-0.1` and so on; the lineage of the
trunk is added where it is not torchvision's, for which heads were fitted
(`lpips-squeeze-0.1~caffe-squeezenet`). `{net}` is a feature net, or `random-…` where nobody trained
it; `{k}` is a number of neighbours, `{factor}` one of palette, texture, light.

E is what makes codes of images in the method at hand, and z the code. Methods that translate
without one (pSp) have "every source translated as it is" in place of the pictures below, and so
other hashes.

Where codes have length zero, as those of pix2pix, scores of the group style and LPIPS diversity are
left out: nothing there has a style.

This page is made by `python -m step_jax.evaluate.protocols > docs/protocols.md`.
"""
_UINT8 = 'uint8 RGB 0..255; outputs are rounded to nearest and clipped, as when saved'
_OWN = 'every source translated with z = E(its target), against that target'
_RESIZED = 'both pictures resized to 256x256 by Pillow bicubic, rounded to uint8'
_RESIZED_OUTPUTS = 'outputs resized to 256x256 by Pillow bicubic, rounded to uint8'
_INPUTS = 'the first 100 sources of the split'
_DRAWN = f'{_INPUTS}, each in 20 drawn styles'
_REALISM = 'the first sources of the split in 1 drawn style each, against the first train targets'


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a number is made.

  Attributes:
    id: names it; blanks such as `{net}` and `{lpips}` are filled in by `on`.
    group: one of `GROUPS`.
    better: `higher`, `lower`, or empty where it is a scale and neither is better.
    title: one line for people.
    definition: what decides the number.
  """

  id: str
  group: str
  better: str
  title: str
  definition: Mapping[str, str]

  @property
  def hash(self) -> str:
    """First 12 hex digits of the SHA-256 of id and definition."""
    text = json.dumps([self.id, dict(self.definition)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def on(self, facts: Mapping[str, str], **names: str) -> 'Protocol':
    """This protocol on certain data, with certain weights.

    Args:
      facts: added to the definition: data, weights, seed, counts.
      names: fill the blanks of the id.

    Raises:
      KeyError: a blank has no name.
    """
    return dataclasses.replace(
      self, id=self.id.format(**names), definition={**self.definition, **facts}
    )


def _protocol(id_: str, group: str, better: str, title: str, **definition: str) -> Protocol:
  return Protocol(id_, group, better, title, definition)


PROTOCOLS = {
  protocol.id: protocol
  for protocol in (
    _protocol(
      'psnr/uint8', 'reconstruction', 'higher', 'peak signal-to-noise ratio in dB',
      pictures=_OWN, range=_UINT8, size='native',
      formula='10 log10(255^2 / mean squared difference over pixels and channels), mean over '
      'pictures',
    ),
    _protocol(
      'ssim/uint8', 'reconstruction', 'higher', 'structural similarity',
      pictures=_OWN, range=_UINT8, size='native',
      formula='Wang et al. 2004: Gaussian window 11x11, sigma 1.5, K 0.01 and 0.03, valid region, '
      'mean over channels',
    ),
    _protocol(
      'l1/uint8', 'reconstruction', 'lower', 'mean absolute difference, in parts of 255',
      pictures=_OWN, range=_UINT8, size='native', formula='mean over pixels, channels, pictures',
    ),
    _protocol(
      'nrmse/uint8', 'reconstruction', 'lower', 'root mean square error in parts of the image',
      pictures=_OWN, range=_UINT8, size='native',
      formula='|output - target| / |target|, Euclidean over pixels and channels, mean over '
      'pictures',
    ),
    _protocol(
      'perceptual-{net}/native', 'reconstruction', 'lower', "StEP's perceptual loss",
      pictures=_OWN, range=_UINT8, size='native',
      formula='sum over taps of weight * mean((0.1 * difference of features)^2)',
    ),
    _protocol(
      '{lpips}/256', 'reconstruction', 'lower', 'learned perceptual distance',
      pictures=_OWN, range=_UINT8, size=_RESIZED, formula='Zhang et al. 2018, eq. 1, linear heads',
    ),
    _protocol(
      'psnr-mean-style/uint8', 'reconstruction', '',
      'PSNR of the image of the mean style: the scale for psnr/uint8',
      pictures='that one image, against every target', range=_UINT8, size='native',
      formula='as psnr/uint8',
    ),
    _protocol(
      '{lpips}-mean-style/256', 'reconstruction', '',
      'LPIPS of the image of the mean style: the scale for {lpips}/256',
      pictures='that one image, against every target', range=_UINT8, size=_RESIZED,
      formula='Zhang et al. 2018, eq. 1',
    ),
    _protocol(
      'l2/float', 'reconstruction', 'lower', "mean squared difference, as pSp's reference",
      pictures='every source translated, against its target, in the size of the target',
      range='[-1, 1] of uint8; outputs are rounded down and clipped', size='of the target',
      formula='mean over pixels, channels, pictures',
    ),
    _protocol(
      'identity/112', 'reconstruction', 'higher', 'similarity of identities; for aligned faces',
      pictures='as l2/float', range='as l2/float',
      size='rows 35 to 223 and columns 32 to 220 at 256 px, by means over bins to 112 px',
      formula="inner product of the embeddings of CurricularFace's IR-101",
    ),
    _protocol(
      'segmentation-miou', 'reconstruction', 'higher',
      'is the label map seen in the output? mean intersection over union',
      pictures=_OWN, range=_UINT8, size='native',
      formula='labels that a segmenter reads, trained on the real training pairs, against the '
      'label map; of each label over all pictures, mean over labels that occur',
    ),
    _protocol(
      'segmentation-miou-photos', 'reconstruction', '',
      'the same of the true pictures: the scale for segmentation-miou',
      pictures='targets of the split', range=_UINT8, size='native', formula='as segmentation-miou',
    ),
    _protocol(
      'segmentation-accuracy', 'reconstruction', 'higher',
      'share of pixels of the output that are read as their label',
      pictures=_OWN, range=_UINT8, size='native',
      formula='by the segmenter of segmentation-miou, mean over pictures',
    ),
    _protocol(
      'segmentation-accuracy-photos', 'reconstruction', '',
      'the same of the true pictures: the scale for segmentation-accuracy',
      pictures='targets of the split', range=_UINT8, size='native',
      formula='as segmentation-accuracy',
    ),
    _protocol(
      'segmentation-miou-sampled', 'style', 'higher', 'segmentation-miou in drawn styles',
      pictures='every source of the split in 1 drawn style', range=_UINT8, size='native',
      formula='as segmentation-miou',
    ),
    _protocol(
      'segmentation-accuracy-sampled', 'style', 'higher', 'segmentation-accuracy in drawn styles',
      pictures='every source of the split in 1 drawn style', range=_UINT8, size='native',
      formula='as segmentation-accuracy',
    ),
    _protocol(
      'edit-locality/uint8', 'style', 'higher',
      'how much more an edited region changes than the rest of the picture',
      pictures='every source translated with its own code, and with that of one region from the '
      'next target of its batch of 8 pictures of one size: the largest that both have a code for',
      range=_UINT8, size='native',
      formula='mean absolute change per pixel inside of the region over that outside, each a mean '
      'over pictures; without noise',
    ),
    _protocol(
      'psnr-other-style/uint8', 'style', '',
      "PSNR in another picture's style: below psnr/uint8 by as much as style matters",
      pictures='every source translated with z = E(the next target of its batch of 8 pictures of '
      'one size), against its own target',
      range=_UINT8, size='native', formula='as psnr/uint8',
    ),
    _protocol(
      '{lpips}-styles/256', 'style', '',
      'LPIPS between two styles of one input; compare with -photos',
      pictures='the two translations of psnr/uint8 and psnr-other-style/uint8',
      range=_UINT8, size=_RESIZED, formula='Zhang et al. 2018, eq. 1',
    ),
    _protocol(
      '{lpips}-photos/256', 'style', '', 'LPIPS between two true pictures: the scale for -styles',
      pictures='each target and the next one of its batch of 8 pictures of one size',
      range=_UINT8, size=_RESIZED, formula='Zhang et al. 2018, eq. 1',
    ),
    _protocol(
      'style-code-error/relative', 'style', 'lower',
      'does the output carry the style? 0 exactly, 1 no better than a random style',
      pictures='psnr-other-style/uint8',
      formula='|E(output) - z| / mean distance of the codes of two pictures of the split',
    ),
    _protocol(
      'content-distance-{net}/relative', 'style', 'lower',
      'is content kept when the style changes? 0 exactly, 1 as different as two photographs',
      pictures='the two translations of psnr/uint8 and psnr-other-style/uint8',
      range=_UINT8, size='native',
      formula='mean squared difference of the middle tap, each channel normalised over the picture '
      '(Huang et al. 2018, domain-invariant perceptual distance), over that of two targets',
    ),
    _protocol(
      'retrieval-precision@{k}-{net}', 'style', 'higher',
      "of a picture's nearest by code, the share that is among its nearest by style distance",
      pictures='targets of the split',
      formula='the k nearest others by Euclidean distance of z, and by the squared difference of '
      'Gram matrices summed over taps',
    ),
    _protocol(
      'probe-{factor}', 'style', 'higher',
      'how well a linear map of codes predicts known factors of swatches: 1 exactly, 0 not at all',
      pictures='codes of train targets fit it, codes of the split test it',
      formula='R^2 of ridge regression (1e-3) on standardised codes; angles as sine and cosine; '
      'mean over the factors of the group',
    ),
    _protocol(
      'probe-region-colour', 'style', 'higher',
      'how well a linear map of the codes of regions predicts their known colours in swatches',
      pictures='codes of all regions of train targets fit it, those of the split test it',
      formula='R^2 of ridge regression (1e-3) on standardised codes, mean over R, G and B',
    ),
    _protocol(
      '{lpips}-diversity-exemplar/256', 'diversity', 'higher',
      "LPIPS between outputs in 16 pictures' styles, as StEP",
      pictures=f'{_INPUTS}, each in the styles of 16 other targets of the split, drawn by seed',
      range=_UINT8, size=_RESIZED_OUTPUTS,
      formula='mean LPIPS over the 120 pairs of 16 outputs, mean over inputs',
    ),
    _protocol(
      '{lpips}-diversity-sampled/256', 'diversity', 'higher',
      'LPIPS between outputs in 16 drawn styles, as StEP',
      pictures=f'{_DRAWN}, of which the first 16 count', range=_UINT8, size=_RESIZED_OUTPUTS,
      formula='mean LPIPS over the 120 pairs of 16 outputs, mean over inputs',
    ),
    _protocol(
      '{lpips}-diversity-noise/256', 'diversity', '',
      "LPIPS between outputs that differ in the generator's noise alone: the scale for -sampled",
      pictures=f'{_INPUTS}, each with 16 draws of noise', range=_UINT8, size=_RESIZED_OUTPUTS,
      formula='mean LPIPS over the 120 pairs of 16 outputs, mean over inputs',
    ),
    _protocol(
      '{lpips}-diversity-bicyclegan/256', 'diversity', 'higher',
      'LPIPS between consecutive outputs of 20 drawn styles, as BicycleGAN',
      pictures=_DRAWN, range=_UINT8, size=_RESIZED_OUTPUTS,
      formula='mean LPIPS over the 19 consecutive pairs, mean over inputs',
    ),
    _protocol(
      'ndb/32', 'diversity', 'lower', 'share of bins in which outputs and real pictures differ',
      pictures='every source of the split in 1 drawn style, against the first 5000 train targets',
      range=_UINT8, size='32x32 by Pillow bicubic, rounded to uint8',
      formula='Richardson and Weiss 2018: K-means bins of the train targets, one for every 10 '
      'outputs and at most 100, two-proportion z-test at 5 %',
    ),
    _protocol(
      'jsd/32', 'diversity', 'lower', 'Jensen-Shannon divergence of the same bins, in nats',
      pictures='as ndb/32', range=_UINT8, size='as ndb/32',
      formula='of the two histograms; Richardson and Weiss 2018',
    ),
    _protocol(
      'fid-inception-tf/299-clean', 'realism', 'lower', 'Fréchet Inception distance',
      pictures=_REALISM, range=_UINT8,
      size="299x299 by clean-fid's resize: Pillow bicubic in float32, not rounded",
      formula='Heusel et al. 2017 on 2048 pool features, input (x - 128) / 128',
    ),
    _protocol(
      'kid-inception-tf/299-clean', 'realism', 'lower', 'kernel Inception distance',
      pictures=_REALISM, range=_UINT8, size='as fid-inception-tf/299-clean',
      formula='Bińkowski et al. 2018: unbiased squared MMD, kernel (x.y/d + 1)^3, consecutive '
      'blocks of 1000 pairs',
    ),
    _protocol(
      'frechet-{net}/224-clean', 'realism', 'lower',
      'Fréchet distance on features of another net: not FID',
      pictures=_REALISM, range=_UINT8,
      size='224x224 by Pillow bicubic in float32, not rounded',
      formula='Heusel et al. 2017, on layer fire9, mean over places',
    ),
    _protocol(
      'kernel-{net}/224-clean', 'realism', 'lower',
      'kernel distance on features of another net: not KID',
      pictures=_REALISM, range=_UINT8, size='as frechet-{net}/224-clean',
      formula='as kid-inception-tf/299-clean, on layer fire9, mean over places',
    ),
  )
}  # fmt: skip


def page() -> str:
  """`docs/protocols.md`: every protocol with its definition."""
  lines = [_INTRODUCTION]
  for group, title in GROUPS.items():
    lines.append(f'## {group}\n\n{title}\n')
    for protocol in PROTOCOLS.values():
      if protocol.group == group:
        better = f'; {protocol.better} is better' if protocol.better else ''
        lines.append(f'### `{protocol.id}`\n\n{protocol.title}{better}\n')
        lines += [f'- {field}: {text}' for field, text in protocol.definition.items()]
        lines.append('')
  return '\n'.join(lines)


if __name__ == '__main__':
  print(page(), end='')
