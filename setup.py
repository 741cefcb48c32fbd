"""Packaging of step_jax."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.*)'", (HERE / 'step_jax' / '__init__.py').read_text()).group(
  1
)

# Orbax needs google-cloud-storage to delete checkpoints.
GCS = ['fsspec>=2025.3', 'gcsfs>=2025.3', 'google-cloud-storage>=3.0']
CUDA12 = ['jax[cuda12]>=0.7.2']
HUB = ['huggingface_hub>=1.16']
DEMO = ['gradio>=6.31', 'scikit-learn>=1.6']

setuptools.setup(
  name='step_jax',
  version=VERSION,
  description='Multi-modal image-to-image translation in JAX: StEP, pSp and SuperStyleNet.',
  long_description=(HERE / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  # The code; and the bundled weights.
  license_expression='Apache-2.0 AND BSD-2-Clause AND MIT',
  license_files=['LICENSE', 'step_jax/weights/bundled/LICENSES.txt'],
  project_urls={
    'StEP': 'https://arxiv.org/abs/2104.07098',
    'pSp': 'https://arxiv.org/abs/2008.00951',
    'SuperStyleNet': 'https://arxiv.org/abs/2112.09367',
  },
  python_requires='>=3.12',
  # Configurations of stages are at the top of the repository, and in the installed package.
  packages=[*setuptools.find_packages(include=['step_jax', 'step_jax.*']), 'step_jax.configs'],
  package_dir={'step_jax.configs': 'configs'},
  package_data={
    'step_jax': ['py.typed'],
    'step_jax.demo': ['*.css'],
    'step_jax.methods': ['shipped/*/*'],
    'step_jax.report': ['*.j2'],
    'step_jax.reproduce': ['*.j2'],
    'step_jax.weights': ['bundled/*'],
  },
  install_requires=[
    'array_record>=0.8',
    'clu>=0.0.12',
    'etils[epath]>=1.9',
    # Needed by jax.export, which does not declare it.
    'flatbuffers>=24.3',
    # These versions of flax and jax are installed on Colab, and tests pass with them.
    'flax>=0.11.2',
    'grain>=0.2.18',
    'h5py>=3.12',
    # Needed by TFDS, which does not declare it.
    'importlib_resources>=6.4',
    'jax>=0.7.2',
    'jinja2>=3.1',
    'matplotlib>=3.9',
    'ml_collections>=1.0',
    'numpy>=2.0',
    'optax>=0.2.6',
    # 1.0 changes the API under the same names.
    'orbax-checkpoint>=0.12,<1.0',
    'packaging>=24.0',
    'pillow>=11.0',
    'safetensors>=0.5',
    'scipy>=1.14',
    'tensorboardX>=2.6',
    'tensorflow-datasets>=4.9.10',
    'tensorstore>=0.1.70',
    'tqdm>=4.66',
  ],
  extras_require={
    'tpu': ['jax[tpu]>=0.7.2', *GCS],
    # CUDA 12 needs driver 525 or newer, CUDA 13 needs 580 or newer.
    'cuda': CUDA12,
    'cuda12': CUDA12,
    'cuda13': ['jax[cuda13]>=0.10'],
    # Work directories and images in buckets (gs://).
    'gcs': GCS,
    'test': [
      *DEMO,
      *GCS,
      *HUB,
      'hypothesis>=6.100',
      'ipykernel>=6.29',
      'nbclient>=0.10',
      'nbformat>=5.10',
      'pytest>=8.0',
      'pytest-xdist>=3.6',
      'ruff>=0.8',
      'scikit-image>=0.24',
    ],
    'fuzz': ['atheris>=3.0'],
    'bench': ['faiss-cpu>=1.9', 'scikit-learn>=1.6', 'torch>=2.6'],
    # Imports of jax2onnx. jax2onnx itself is installed with --no-deps, because it requires an older
    # Orbax, which it does not use.
    'onnx': ['onnx>=1.20', 'onnx-ir>=0.2', 'onnxruntime>=1.24'],
    # Metrics and images in Weights & Biases.
    'wandb': ['wandb>=0.19'],
    # Runs from exports on the Hugging Face hub (hf://).
    'hub': HUB,
    # The web page of step-jax demo.
    'demo': DEMO,
    # The browser test of the web page, which uses the Chromium of the system.
    'browser': ['playwright>=1.50'],
  },
  entry_points={'console_scripts': ['step-jax = step_jax.console:main']},
  classifiers=[
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Image Processing',
  ],
)
