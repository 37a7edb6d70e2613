"""k-means for many centres: careful seeds, a few rounds more than needed of them, and faiss for the distances.

At 10,000 centres of a few features each, where the seeds lie decides the result, and a search for the best of them is
what scikit-learn spends its time on. Here the features are first parted into cells, and each seed is weighed against
those of its own cell alone. A fifth more seeds than centres are set, of which those that are missed least go again.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from modules.console import UserError, option, progress

Features = NDArray[np.float32]

SURPLUS = 1.2  # seeds for each centre
TRIALS = 16  # candidates for each seed
SEEDS_A_CELL = 33
SEEDED_FROM = 16  # features a seed at most; more of them tell nothing new about where seeds should lie
EARLY_ROUNDS, ROUNDS = 2, 20
SETTLED = 1e-4  # share of the inertia; a round that gains less is the last
SEARCHED_WHOLE = 2000  # with more centres than these, each feature is compared with the nearby ones only
NEARBY_CELLS = 4
ROUNDING = 1e-6  # squared distances below this share of the squares that they are the difference of are none


def k_means(features: Features, count: int, *, seed: int = 0, gpu: bool = False, name: str = "k-means") -> Features:
    """Centres (count, C) of the features (N, C), which minimise the squared distance of a feature to its nearest one.

    There are fewer when fewer features differ; without more features than ``count`` they are the features themselves.
    ``name`` is what the progress bars say. Raises UserError when ``gpu`` is asked of a faiss that sees none.

    Seeds: greedy k-means++ (Arthur and Vassilvitskii, 2007), in cells. Rounds: Lloyd's.
    """
    if gpu:
        refuse_missing_gpu()
    if len(features) <= count:
        return features.copy()
    centres = _seeds(features, min(round(SURPLUS * count), len(features)), np.random.default_rng(seed), name)
    with progress(total=ROUNDS, description=f"{name}, rounds", unit="round") as bar:
        for _ in range(EARLY_ROUNDS):
            centres, _ = _moved(features, centres, gpu)
            bar.update()
        while len(centres) > count:
            centres = _without_the_least_missed(features, centres, count, gpu)
        before = np.inf
        for _ in range(ROUNDS - EARLY_ROUNDS - 1):
            centres, inertia = _moved(features, centres, gpu)
            bar.update()
            if before - inertia <= SETTLED * inertia:
                break
            before = inertia
        centres, _ = _moved(features, centres, gpu, whole=True)
        bar.update()
    return centres


def refuse_missing_gpu() -> None:
    """UserError when this machine, or this faiss, has no CUDA device."""
    if not faiss.get_num_gpus():
        faiss_for_it = "faiss for it: 'pip install faiss-gpu-cu12' in faiss-cpu's place"
        raise UserError(f"{option('gpu', True)} needs a CUDA device and {faiss_for_it}")


# -- seeds ------------------------------------------------------------------------------------------------------------


def _seeds(features: Features, count: int, rng: np.random.Generator, name: str) -> Features:
    """``count`` of the features, or fewer when fewer differ, chosen with odds that grow with the squared distance."""
    if len(features) > SEEDED_FROM * count:
        features = features[np.sort(rng.choice(len(features), SEEDED_FROM * count, replace=False))]
    cells = [_Cell(rows, rng) for rows in _parted(features, max(1, count // SEEDS_A_CELL), rng)]
    left = np.array([cell.distances.sum() for cell in cells], np.float64)
    for _ in progress(range(count - len(cells)), description=f"{name}, seeds", unit="seed"):
        if not left.sum() > 0:
            break
        chosen = _drawn(left, 1, rng)[0]
        cells[chosen].add_seed(rng)
        left[chosen] = cells[chosen].distances.sum()
    return np.concatenate([cell.features[cell.seeds] for cell in cells])


def _parted(features: Features, count: int, rng: np.random.Generator) -> list[Features]:
    """The features in at most ``count`` groups of near ones."""
    settings = {"niter": 6, "min_points_per_centroid": 1, "max_points_per_centroid": 64}  # silent, and coarse enough
    coarse = faiss.Kmeans(features.shape[1], count, seed=int(rng.integers(1 << 31)), **settings)
    coarse.train(features)
    labels = coarse.index.search(features, 1)[1][:, 0]
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))
    return [features[rows] for rows in np.split(order, ends[:-1]) if len(rows)]


def _drawn(weights: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """``count`` indices, with odds in proportion to the weights."""
    edges = np.cumsum(weights, dtype=np.float64)
    return np.minimum(np.searchsorted(edges, rng.random(count) * edges[-1], side="right"), len(edges) - 1)


class _Cell:
    """Features near each other, some of them seeds, and the squared distance of each to the nearest seed."""

    def __init__(self, features: Features, rng: np.random.Generator):
        self.features = features
        self.centred = features - features.mean(axis=0)  # small numbers lose less in the difference of squares
        self.squares = np.einsum("nc,nc->n", self.centred, self.centred)
        self.seeds = [int(rng.integers(len(features)))]
        self.distances = self._distances_to(self.seeds)[0]

    def add_seed(self, rng: np.random.Generator) -> None:
        """Make that one of a few candidates a seed which leaves least distance."""
        candidates = _drawn(self.distances, TRIALS, rng)
        left = np.minimum(self.distances, self._distances_to(candidates))
        best = left.sum(axis=1).argmin()
        self.seeds.append(int(candidates[best]))
        self.distances = left[best]

    def _distances_to(self, rows: list[int] | NDArray[np.intp]) -> Features:
        scale = self.squares[rows, None] + self.squares
        distances = scale - 2 * (self.centred[rows] @ self.centred.T)
        return np.where(distances > ROUNDING * scale, distances, 0)


# -- rounds -----------------------------------------------------------------------------------------------------------


def _moved(features: Features, centres: Features, gpu: bool, whole: bool = False) -> tuple[Features, float]:
    """Every centre at the mean of its features, and the inertia before. A centre without features stays."""
    distances, labels = _index(centres, gpu, whole).search(features, 1)
    labels = labels[:, 0]
    sizes = np.bincount(labels, minlength=len(centres))
    shares = (1 / sizes[labels]).astype(np.float32)
    means = sparse.csr_array((shares, (labels, np.arange(len(labels)))), (len(centres), len(features))) @ features
    return np.where(sizes[:, None] > 0, means, centres), float(distances.sum(dtype=np.float64))


def _index(centres: Features, gpu: bool, whole: bool) -> faiss.Index:
    """Finds the nearest centres: exactly, or (many centres on a CPU) among those of the nearest few of their cells."""
    count, size = centres.shape
    index = faiss.IndexFlatL2(size)
    if gpu:
        index = faiss.index_cpu_to_all_gpus(index)
    elif count > SEARCHED_WHOLE and not whole:
        index = faiss.index_factory(size, f"IVF{int(count**0.5)},Flat")
        index.nprobe, index.cp.niter, index.cp.min_points_per_centroid = NEARBY_CELLS, 6, 1
        index.train(centres)
    index.add(centres)
    return index


def _without_the_least_missed(features: Features, centres: Features, count: int, gpu: bool) -> Features:
    """``count`` of the centres, or a few more. One is missed by as much as its features are farther from their heir,
    the next centre; a centre that inherits stays.
    """
    distances, nearest = _index(centres, gpu, whole=False).search(features, 2)
    labels, heirs = nearest.T
    missed = np.bincount(labels, distances[:, 1] - distances[:, 0], minlength=len(centres))
    order = np.argsort(labels, kind="stable")
    heirs = np.split(heirs[order], np.cumsum(np.bincount(labels, minlength=len(centres)))[:-1])
    kept, needed = np.ones(len(centres), bool), np.zeros(len(centres), bool)
    surplus = len(centres) - count
    for centre in np.argsort(missed, kind="stable"):
        if surplus <= 0:
            break
        if not needed[centre] and kept[heirs[centre]].all():
            kept[centre], surplus = False, surplus - 1
            needed[heirs[centre]] = True
    return np.ascontiguousarray(centres[kept])
