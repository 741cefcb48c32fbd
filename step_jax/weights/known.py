"""Published weights files: their addresses and SHA-256.

Each digest was found in at least two independent sources that pin these files, except for the LPIPS
0.0 heads of AlexNet and VGG16. These are from one mirror, whose copies of the other four heads are
equal to the published ones. File names of torchvision contain the first 8 digits; for files that
torchvision no longer offers, only these are known. machrisaa's `vgg16.npy` has no digest here: the
author gives a SHA-1 (6206897b35c2bfe5d9d16b83314e44fc3ea83b1c), but Python 3 users have re-saved
the file under the same name.
"""

import dataclasses
import hashlib
import pathlib

from step_jax.errors import WeightsError


@dataclasses.dataclass(frozen=True)
class Published:
  """A published file.

  Attributes:
    name: network or heads in the file.
    file: name of the file, with its folder if the name alone is ambiguous.
    sha256: digest, or its first 8 digits.
    urls: addresses; empty for files that torchvision has replaced.
    lineage: origin of the network if tensor names do not determine it; see `layouts.PIXELS`.
  """

  name: str
  file: str
  sha256: str
  urls: tuple[str, ...] = ()
  lineage: str = ''


_KERAS = 'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5'
_TORCH = 'https://download.pytorch.org/models/'
# A commit, not a branch, so that the digests remain valid.
_LPIPS = (
  'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/'
  '082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/'
)


def _torchvision(name: str, file: str, sha256: str, lineage: str = '') -> Published:
  return Published(name, file, sha256, (_TORCH + file,), lineage)


def _lpips(net: str, sha256: str, version: str = '0.1') -> Published:
  name = f'lpips_{net}' if version == '0.1' else f'lpips_{net}_v{version}'
  file = f'v{version}/{net}.pth'
  return Published(name, file, sha256, (_LPIPS + file,))


def _inception(repository: str, release: str) -> Published:
  """A release of the Inception weights; the same file is published under two names."""
  url = f'https://github.com/{repository}/releases/download/{release}'
  sha256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
  return Published('inception', release.rpartition('/')[2], sha256, (url,))


# `get` uses the first entry of a name.
PUBLISHED = (
  Published(
    'vgg16',
    _KERAS,
    'bfe5187d0a272bed55ba430631598124cff8e880b98d38c9e56c8d66032abdc1',
    (
      f'https://storage.googleapis.com/tensorflow/keras-applications/vgg16/{_KERAS}',
      f'https://github.com/fchollet/deep-learning-models/releases/download/v0.1/{_KERAS}',
    ),
  ),
  _torchvision(
    'vgg16',
    'vgg16-397923af.pth',
    '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
  ),
  # The authors' weights with torchvision's names: from SSD, and by J. Johnson.
  _torchvision('vgg16', 'vgg16_features-amdegroot-88682ab5.pth', '88682ab5', 'caffe-ssd'),
  Published('vgg16', 'vgg16-00b39a1b.pth', '00b39a1b', lineage='caffe-vgg'),
  _torchvision(
    'vgg19',
    'vgg19-dcbb9e9d.pth',
    'dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44',
  ),
  _torchvision(
    'alexnet',
    'alexnet-owt-7be5be79.pth',
    '7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02',
  ),
  Published('alexnet', 'alexnet-owt-4df8aa71.pth', '4df8aa71'),
  _torchvision(
    'squeezenet1_1',
    'squeezenet1_1-b8a52dc0.pth',
    'b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b',
  ),
  Published('squeezenet1_1', 'squeezenet1_1-f364aa15.pth', 'f364aa15'),
  _inception('mseitzer/pytorch-fid', 'fid_weights/pt_inception-2015-12-05-6726825d.pth'),
  _inception('toshas/torch-fidelity', 'v0.2.0/weights-inception-2015-12-05-6726825d.pth'),
  _lpips('alex', 'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0'),
  _lpips('vgg', 'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868'),
  _lpips('squeeze', '4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76'),
  _lpips('alex', '18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5', '0.0'),
  _lpips('vgg', 'b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c', '0.0'),
  _lpips('squeeze', 'c27abd3a0145541baa50990817df58d3759c3f8154949f42af3b59b4e042d0bf', '0.0'),
)


def by_name(name: str) -> Published:
  """The file that `get` uses for a network or heads.

  Raises:
    WeightsError: there is no published file for that name.
  """
  for published in PUBLISHED:
    if published.name == name:
      return published
  names = ', '.join(dict.fromkeys(published.name for published in PUBLISHED))
  raise WeightsError(f'no weights are called {name!r}; there are {names}')


def by_digest(sha256: str) -> Published | None:
  """The published file with a digest, whatever its current name; None if there is none."""
  for published in PUBLISHED:
    if sha256.startswith(published.sha256):
      return published
  return None


def by_file(path: pathlib.PurePath) -> Published | None:
  """The published file with a name (with its folder if the name alone is ambiguous)."""
  for published in PUBLISHED:
    parts = pathlib.PurePath(published.file).parts
    if path.parts[-len(parts) :] == parts:
      return published
  return None


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file, in hex.

  Raises:
    WeightsError: the file cannot be read.
  """
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise WeightsError(f'cannot read {path}: {error.strerror}; check the path') from error


def check(path: pathlib.PurePath, sha256: str) -> None:
  """Compares a digest with the published one for the name of the file, if there is one.

  Raises:
    WeightsError: they differ.
  """
  published = by_file(path)
  if published and not sha256.startswith(published.sha256):
    raise WeightsError(
      f'{path} is damaged or altered: its SHA-256 begins {sha256[:8]}, that of the published '
      f'{published.file} begins {published.sha256[:8]}; download it again'
    )
