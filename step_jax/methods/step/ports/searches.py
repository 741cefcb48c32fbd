"""Nearest-neighbour searches with other libraries: PyTorch, scikit-learn's ball tree, faiss.

Each function returns the same as ours, which tests check.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from step_jax.bench import case
from step_jax.bench.ports import running

# Rows per product, as in `search.neighbors`.
_BLOCK = 1024
# Codes per product of IMLE, which limits the memory of distances.
_CODES = 512
# Additional candidates that are ranked by direct differences, as in `search.neighbors`.
_SPARE = 8
# Columns per chunk, and maximum number of entries per operation.
_RUN, _ENTRIES = 4096, 2**20


def find_neighbors(
  vectors: torch.Tensor, num_nearest: int, num_farthest: int
) -> tuple[np.ndarray, np.ndarray]:
  """Indices of the nearest `[N, k]` and of the farthest `[N, m]` others, in order of distance.

  Same algorithm as `search.neighbors`: blocked float32 products, then candidates are ranked by
  direct differences.

  Args:
    vectors: float32 `[N, D]`.
    num_nearest: k.
    num_farthest: m.
  """
  vectors = vectors - vectors.mean(dim=0)
  norms = vectors.square().sum(dim=1)
  nearest, farthest = [], []
  for start in range(0, len(vectors), _BLOCK):
    rows = slice(start, min(start + _BLOCK, len(vectors)))
    distance = norms[rows, None] + norms[None] - 2 * vectors[rows] @ vectors.T
    own = torch.arange(rows.start, rows.stop, device=vectors.device)
    place = own - rows.start
    for neighbors, count, sign in ((nearest, num_nearest, 1), (farthest, num_farthest, -1)):
      distance[place, own] = sign * torch.inf
      keep = min(count + _SPARE, len(vectors) - 1)
      candidates = torch.topk(sign * distance, keep, largest=False).indices.sort().values
      exact = exact_distances(vectors, own, candidates)
      order = torch.sort(sign * exact, dim=1, stable=True).indices[:, :count]
      neighbors.append(candidates.gather(1, order))
  return tuple(torch.cat(rows).cpu().numpy() for rows in (nearest, farthest))


def exact_distances(
  vectors: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
  """Squared distances by direct differences, float64 `[R, K]`.

  Uses chunks of columns and groups of rows that fit in a cache; chunks are summed in float64.

  Args:
    vectors: float32 `[N, D]`.
    rows: indices `[R]`.
    candidates: indices `[R, K]` of the vectors to compare each row with.
  """
  distance = torch.zeros(candidates.shape, dtype=torch.float64, device=vectors.device)
  group = max(1, _ENTRIES // (candidates.shape[1] * _RUN))
  for part in range(0, len(rows), group):
    some = slice(part, part + group)
    for start in range(0, vectors.shape[1], _RUN):
      run = vectors[:, start : start + _RUN]
      difference = run[candidates[some]] - run[rows[some], None]
      distance[some] += difference.square_().sum(dim=2)
  return distance


def mining_variants(
  vectors: np.ndarray, num_nearest: int, num_farthest: int
) -> Sequence[case.Variant]:
  """Variants of mining: PyTorch's blocked products."""

  def make():
    device = running.device()
    shared = torch.from_numpy(vectors)

    def work(calls):
      for _ in range(calls):
        # Ours also starts from host memory.
        find_neighbors(shared.to(device), num_nearest, num_farthest)

    return work

  return [case.Variant('torch eager, blocked products', make)]


def nearest_by_torch(
  codes: torch.Tensor, samples: torch.Tensor, distance: Callable
) -> torch.Tensor:
  """Index of the nearest of `[M, Z]` samples for each of `[N, Z]` codes."""
  return torch.cat([distance(part, samples).argmin(dim=1) for part in codes.split(_CODES)])


def products(codes: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
  """Squared distances up to a constant per code, `[N, Z], [M, Z] -> [N, M]`, in one product."""
  return torch.addmm(samples.square().sum(dim=1), codes, samples.T, alpha=-2)


def nearest_by_ball_tree(codes: np.ndarray, samples: np.ndarray) -> np.ndarray:
  """Nearest samples by scikit-learn's ball tree, as in the original."""
  from sklearn.neighbors import NearestNeighbors

  tree = NearestNeighbors(n_neighbors=1, algorithm='ball_tree').fit(samples)
  return tree.kneighbors(codes, return_distance=False)[:, 0]


def nearest_by_faiss(codes: np.ndarray, samples: np.ndarray) -> np.ndarray:
  """Nearest samples by faiss' flat index, on the CPU."""
  import faiss

  index = faiss.IndexFlatL2(samples.shape[1])
  index.add(samples)
  return index.search(codes, 1)[1][:, 0]


def imle_variants(codes: np.ndarray, samples: np.ndarray) -> Sequence[case.Variant]:
  """Variants of IMLE; indices are rebuilt in each call, because samples are new."""

  def on_host(function, package):
    def make():
      __import__(package)

      def work(calls):
        for _ in range(calls):
          function(codes, samples)

      return work

    return make

  def on_device(distance):
    def make():
      arrays = [torch.from_numpy(array).to(running.device()) for array in (codes, samples)]

      def work(calls):
        for _ in range(calls):
          nearest_by_torch(*arrays, distance)
        running.wait()

      return work

    return make

  return [
    case.Variant('scikit-learn ball tree', on_host(nearest_by_ball_tree, 'sklearn')),
    case.Variant('faiss flat', on_host(nearest_by_faiss, 'faiss')),
    case.Variant('torch cdist', on_device(torch.cdist)),
    case.Variant('torch products', on_device(products)),
    case.Variant('torch products, compiled', on_device(torch.compile(products))),
  ]
