"""Feature retrieval: for each content unit, the most similar ones among the target speaker's training data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.features import find_features, read_features
from cluster.index_file import MAKER, read_indexes, read_names, write_indexes
from cluster.kmeans import k_means
from modules.config import load_config
from modules.console import UserError, get_logger, option, progress
from modules.data.file_name import is_one_folder

log = get_logger("retrieval")

NEIGHBOURS = 8
MAX_FEATURES = 200_000  # more of them are replaced by
REDUCED_TO = 10_000  # centres
BLOCK = 8192  # features added at once
SAMPLE_SIZE = 256  # units by which the number of lists is chosen
MIN_RECALL = 0.95  # of the nearest features must be found then


class FeatureIndex:
    """The training features of every speaker, by speaker id, each set in lists of near ones.

    A search looks through the ``nprobe`` lists nearest to a unit: 1 is the published setting and the fastest, more find
    neighbours that lie beyond the edge of a list. None chooses, for each speaker, as few as find MIN_RECALL of the nearest
    features of the first units that are searched for. ``names`` are the speakers' ids by name, if they are known.
    """

    def __init__(
        self,
        path: Path,
        indexes: Mapping[int, faiss.IndexIVFFlat],
        nprobe: int | None = 1,
        names: Mapping[str, int] | None = None,
    ):
        if nprobe is not None and nprobe < 1:
            raise UserError(f"{option('nprobe')} is {nprobe}; at least 1 list must be searched")
        self.path, self.indexes, self.names = path, dict(indexes), dict(names or {})
        self._undecided = set(indexes) if nprobe is None else set()
        for index in self.indexes.values():
            index.nprobe = min(nprobe or 1, index.nlist)

    @property
    def feature_size(self) -> int:
        return next(iter(self.indexes.values())).d

    def check_speakers(self, spk2id: Mapping[str, int]) -> None:
        """Raise UserError when an id stands for another speaker here than in the model, whose speakers are given (a
        model that names nobody gives the ids themselves)."""
        by_id = {row: name for name, row in self.names.items()}
        for name, row in spk2id.items():
            if name != str(row) and by_id.get(row, name) != name:
                raise UserError(
                    f"{self.path} is of other voices: its speaker {row} is '{by_id[row]}', the model's is '{name}'; "
                    f"run '{MAKER}' with the model's config.json, or name the model's own index"
                )

    def neighbours(self, units: Tensor, speaker_id: int) -> Tensor:
        """Mean of the 8 nearest training features of each of the units (T, C): (T, C), weighted by 1/distance^2.

        The distance is the squared Euclidean one. A unit that is a training feature itself is returned as it is, and
        so is one whose lists are empty. Type and device are those of ``units``. Raises UserError when there is nothing
        of the speaker, or the features are of another size.
        """
        if speaker_id not in self.indexes:
            there = ", ".join(map(str, self.indexes))
            raise UserError(f"{self.path} holds no features of speaker {speaker_id}, only of {there}; run '{MAKER}'")
        if units.shape[-1] != self.feature_size:
            raise UserError(
                f"{self.path} is of features of size {self.feature_size}, the speech encoder gives {units.shape[-1]}; "
                f"run '{MAKER}' with the features of this encoder"
            )
        query = np.ascontiguousarray(units.detach().to("cpu", torch.float32).numpy())
        if speaker_id in self._undecided and len(query):
            self._undecided.remove(speaker_id)
            choose_nprobe(self.indexes[speaker_id], query)
        distances, ids, vectors = self.indexes[speaker_id].search_and_reconstruct(query, NEIGHBOURS)
        found = ids >= 0
        mixed = np.einsum("tk,tkc->tc", neighbour_weights(distances, found), np.where(found[..., None], vectors, 0))
        return torch.from_numpy(np.where(found.any(axis=1)[:, None], mixed, query)).to(units)


def choose_nprobe(index: faiss.IndexIVFFlat, query: NDArray[np.float32]) -> None:
    """Double ``index.nprobe`` from 1 until a search finds MIN_RECALL of the nearest features of a sample of ``query``
    (T, C), and log it."""
    sample = query[:: -(-len(query) // SAMPLE_SIZE)]
    index.nprobe = index.nlist
    _, nearest = index.search(sample, NEIGHBOURS)
    index.nprobe = 1
    while (recall := _recall(index.search(sample, NEIGHBOURS)[1], nearest)) < MIN_RECALL and index.nprobe < index.nlist:
        index.nprobe = min(2 * index.nprobe, index.nlist)
    log.info("nprobe %d of %d lists finds %.1f %% of the nearest features", index.nprobe, index.nlist, 100 * recall)


def _recall(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    """The share of the ids ``nearest`` (T, K) that are in the same row of ``found``; -1 stands for none."""
    wanted = nearest >= 0
    return float((nearest[:, :, None] == found[:, None, :]).any(axis=2)[wanted].mean()) if wanted.any() else 1.0


def neighbour_weights(distances: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weights (T, K) in proportion to 1/distance^2, with the sum 1 wherever anything was found, 0 where nothing.

    Of neighbours at distance 0 the weight would be infinite: they share it alone.
    """
    distances = np.where(found, distances.astype(np.float64), np.inf)
    nearest = distances.min(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(nearest > 0, (nearest / distances) ** 2, distances == 0)
    weights = np.where(found, weights, 0)
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def load_feature_index(path: str | Path, nprobe: int | None = 1) -> FeatureIndex:
    """Read ``feature_and_index.pkl``. Raises UserError as ``read_indexes`` does, or for ``nprobe`` below 1."""
    return FeatureIndex(Path(path), read_indexes(path), nprobe, read_names(path))


def train_feature_index(config_path: str | Path, dataset: str | Path, path: str | Path) -> None:
    """Write to ``path`` the index of every speaker of ``spk`` in ``config.json``, whose features are in ``dataset``.

    A speaker without a folder there, as one that was removed from the data, is left out with a warning. Raises
    UserError when all are, a folder has no features, a file of them cannot be used, or ``path`` not be written.
    """
    speakers = load_config(config_path).spk
    if not speakers:
        raise UserError(f"{config_path} names no speakers (spk); 'python preprocess_flist_config.py' writes them")
    absent = [name for name in speakers if not is_one_folder(name) or not os.path.isdir(Path(dataset) / name)]
    if len(absent) == len(speakers):
        none = f"{dataset} holds no folder of the speakers of {config_path} ({', '.join(absent)})"
        other = f"name another with {option('dataset')}, or run 'python preprocess_flist_config.py' again"
        raise UserError(f"{none}; {other}")
    if absent:
        get_logger("index").warning("left out: %s, without a folder in %s", ", ".join(absent), dataset)
        speakers = {name: number for name, number in speakers.items() if name not in absent}
    files = find_features(Path(dataset) / name for name in speakers)
    log = get_logger("index").info

    def indexes() -> Iterator[tuple[int, faiss.IndexIVFFlat]]:
        size = None
        for name, speaker_id in speakers.items():
            features = read_features(files[name], name, size)
            size, given = features.shape[1], len(features)
            if given > MAX_FEATURES:
                features = k_means(features, REDUCED_TO, name=name)
            reduced = f", reduced to {len(features):,} centres" if len(features) < given else ""
            log(f"{name}: {given:,} features{reduced}")
            yield speaker_id, build_index(features, name)

    write_indexes(path, indexes(), speakers)
    log(f"{path}: the features of {len(speakers)} speakers")


def build_index(features: NDArray[np.float32], name: str = "index") -> faiss.IndexIVFFlat:
    """The features (N, C) in lists of near ones. ``name`` is what the progress bar says."""
    count, size = features.shape
    index = faiss.index_factory(size, f"IVF{list_count(count)},Flat")
    index.cp.min_points_per_centroid = 1  # faiss would warn of a single list
    index.train(features)
    with progress(total=count, description=f"{name}, indexing", unit="feature") as bar:
        for start in range(0, count, BLOCK):
            index.add(features[start : start + BLOCK])
            bar.update(len(features[start : start + BLOCK]))
    return index


def list_count(features: int) -> int:
    """In how many lists so many features are put: the published min(16 sqrt(N), N / 39), but at least one."""
    return max(1, min(int(16 * features**0.5), features // 39))
