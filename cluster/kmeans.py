"""k-means for many centres: greedy k-means++ within cells, pruning of surplus centres, Lloyd's iterations on faiss.

With 10,000 centres of a few features each, the initial centres decide the inertia, and k-means++ takes most of
scikit-learn's time. Here a coarse k-means first splits the features into cells, and k-means++ compares a feature only
with the seeds of its own cell. It samples a fifth more seeds than centres; after two iterations the centres whose
removal raises the inertia least are removed. benchmarks/README.md compares time and inertia with scikit-learn's.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from modules.console import UserError, option, progress

Features = NDArray[np.float32]

SURPLUS = 1.2  # seeds per centre
TRIALS = 16  # candidates per seed in greedy k-means++
SEEDS_A_CELL = 33
FEATURES_PER_SEED = 16  # seeding uses a random subset of larger sets
EARLY_ROUNDS, ROUNDS = 2, 20  # Lloyd's iterations before pruning, and in all
SETTLED = 1e-4  # relative decrease of the inertia below which the iteration stops
MAX_EXACT_CENTRES = 2000  # with more centres the search is approximate, by an inverted-file index
PROBED_LISTS = 4  # of that index, per search
ROUNDING = 1e-6  # squared distances below this share of their operands are rounding errors and count as 0


def k_means(features: Features, count: int, *, seed: int = 0, gpu: bool = False, name: str = "k-means") -> Features:
    """Cluster the features (N, C); returns the centres (count, C).

    Returns fewer centres if fewer features are distinct, and the features themselves if there are ``count`` or fewer.
    ``name`` labels the progress bars. Raises UserError if ``gpu`` is set and faiss finds no GPU.

    Initial centres: greedy k-means++ (Arthur and Vassilvitskii, 2007) within cells. Iterations: Lloyd's.
    """
    if gpu:
        refuse_missing_gpu()
    if len(features) <= count:
        return features.copy()
    centres = _seeds(features, min(round(SURPLUS * count), len(features)), np.random.default_rng(seed), name)
    with progress(total=ROUNDS, description=f"{name}, rounds", unit="round") as bar:
        for _ in range(EARLY_ROUNDS):
            centres, _ = _lloyd_iteration(features, centres, gpu)
            bar.update()
        while len(centres) > count:
            centres = _prune(features, centres, count, gpu)
        before = np.inf
        for _ in range(ROUNDS - EARLY_ROUNDS - 1):
            centres, inertia = _lloyd_iteration(features, centres, gpu)
            bar.update()
            if before - inertia <= SETTLED * inertia:
                break
            before = inertia
        centres, _ = _lloyd_iteration(features, centres, gpu, exact=True)
        bar.update()
    return centres


def refuse_missing_gpu() -> None:
    """Raise UserError if the machine has no CUDA device, or faiss is built without CUDA."""
    if not faiss.get_num_gpus():
        faiss_for_it = "faiss for it: 'pip install faiss-gpu-cu12' in faiss-cpu's place"
        raise UserError(f"{option('gpu', True)} needs a CUDA device and {faiss_for_it}")


# -- seeds ------------------------------------------------------------------------------------------------------------


def _seeds(features: Features, count: int, rng: np.random.Generator, name: str) -> Features:
    """Sample ``count`` of the features as seeds, or fewer if fewer are distinct.

    The cell of each seed is sampled in proportion to the cell's inertia, the seed within the cell by greedy k-means++.
    """
    if len(features) > FEATURES_PER_SEED * count:
        features = features[np.sort(rng.choice(len(features), FEATURES_PER_SEED * count, replace=False))]
    cells = [_Cell(rows, rng) for rows in _split_into_cells(features, max(1, count // SEEDS_A_CELL), rng)]
    inertia = np.array([cell.distances.sum() for cell in cells], np.float64)
    for _ in progress(range(count - len(cells)), description=f"{name}, seeds", unit="seed"):
        if not inertia.sum() > 0:
            break
        chosen = _sample(inertia, 1, rng)[0]
        cells[chosen].add_seed(rng)
        inertia[chosen] = cells[chosen].distances.sum()
    return np.concatenate([cell.features[cell.seeds] for cell in cells])


def _split_into_cells(features: Features, count: int, rng: np.random.Generator) -> list[Features]:
    """Split the features into at most ``count`` cells by a coarse k-means."""
    settings = {"niter": 6, "min_points_per_centroid": 1, "max_points_per_centroid": 64}  # without faiss's warnings
    coarse = faiss.Kmeans(features.shape[1], count, seed=int(rng.integers(1 << 31)), **settings)
    coarse.train(features)
    labels = coarse.index.search(features, 1)[1][:, 0]
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))
    return [features[rows] for rows in np.split(order, ends[:-1]) if len(rows)]


def _sample(weights: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Sample ``count`` indices with probabilities proportional to the weights."""
    edges = np.cumsum(weights, dtype=np.float64)
    return np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), len(edges) - 1)


class _Cell:
    """The features of a cell, the indices of its seeds, and each feature's squared distance to the nearest seed."""

    def __init__(self, features: Features, rng: np.random.Generator):
        self.features = features
        self.centred = features - features.mean(axis=0)  # reduces cancellation in the difference of squares
        self.squares = np.einsum("nc,nc->n", self.centred, self.centred)
        self.seeds = [int(rng.integers(len(features)))]
        self.distances = self._distances_to(self.seeds)[0]

    def add_seed(self, rng: np.random.Generator) -> None:
        """Add the seed that lowers the inertia most, out of TRIALS candidates."""
        candidates = _sample(self.distances, TRIALS, rng)
        distances = np.minimum(self.distances, self._distances_to(candidates))
        best = distances.sum(axis=1).argmin()
        self.seeds.append(int(candidates[best]))
        self.distances = distances[best]

    def _distances_to(self, rows: list[int] | NDArray[np.intp]) -> Features:
        scale = self.squares[rows, None] + self.squares
        distances = scale - 2 * (self.centred[rows] @ self.centred.T)
        return np.where(distances > ROUNDING * scale, distances, 0)


# -- iterations -------------------------------------------------------------------------------------------------------


def _lloyd_iteration(features: Features, centres: Features, gpu: bool, exact: bool = False) -> tuple[Features, float]:
    """Run a Lloyd iteration; returns new centres and the inertia of the old ones. An empty cluster keeps its centre."""
    distances, labels = _index(centres, gpu, exact).search(features, 1)
    labels = labels[:, 0]
    sizes = np.bincount(labels, minlength=len(centres))
    shares = (1 / sizes[labels]).astype(np.float32)
    means = sparse.csr_array((shares, (labels, np.arange(len(labels)))), (len(centres), len(features))) @ features
    return np.where(sizes[:, None] > 0, means, centres), float(distances.sum(dtype=np.float64))


def _index(centres: Features, gpu: bool, exact: bool) -> faiss.Index:
    """Build a faiss index of the centres: exact, or for many centres on a CPU an inverted file with a few probes."""
    count, size = centres.shape
    index = faiss.IndexFlatL2(size)
    if gpu:
        index = faiss.index_cpu_to_all_gpus(index)
    elif count > MAX_EXACT_CENTRES and not exact:
        index = faiss.index_factory(size, f"IVF{int(count**0.5)},Flat")
        index.nprobe, index.cp.niter, index.cp.min_points_per_centroid = PROBED_LISTS, 6, 1
        index.train(centres)
    index.add(centres)
    return index


def _prune(features: Features, centres: Features, count: int, gpu: bool) -> Features:
    """Remove the centres whose removal raises the inertia least; returns ``count`` of them, or a few more.

    When a centre is removed, each of its features goes to its second-nearest centre, and the inertia rises by the
    difference of the two distances. A centre that takes over features is not removed in the same call.
    """
    distances, nearest = _index(centres, gpu, exact=False).search(features, 2)
    labels, second = nearest.T
    increase = np.bincount(labels, distances[:, 1] - distances[:, 0], minlength=len(centres))
    order = np.argsort(labels, kind="stable")
    second = np.split(second[order], np.cumsum(np.bincount(labels, minlength=len(centres)))[:-1])
    kept, needed = np.ones(len(centres), bool), np.zeros(len(centres), bool)
    surplus = len(centres) - count
    for centre in np.argsort(increase, kind="stable"):
        if surplus <= 0:
            break
        if not needed[centre] and kept[second[centre]].all():
            kept[centre], surplus = False, surplus - 1
            needed[second[centre]] = True
    return np.ascontiguousarray(centres[kept])
