"""Feature retrieval: replace each content unit by the mean of the most similar units of the target's training data."""

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
MAX_FEATURES = 200_000  # per speaker; a larger set is replaced by
REDUCED_TO = 10_000  # cluster centres
BLOCK = 8192  # features added at once
SAMPLE_SIZE = 256  # units for choosing nprobe automatically
MIN_RECALL = 0.95  # share of the nearest features that the chosen nprobe finds


class FeatureIndex:
    """The training features of each speaker, by speaker id, in an inverted-file index.

    A search probes the ``nprobe`` lists nearest to a unit: 1 is the published setting and the fastest; more lists find
    more of the true neighbours. None chooses, for each speaker, the smallest power of two that reaches MIN_RECALL on
    the first units that are searched for. ``names`` maps the speakers' names to ids, if they are known.
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
        """Raise UserError if an id belongs to another speaker here than in the model's ``spk2id``.

        A model without names has the ids as names.
        """
        by_id = {row: name for name, row in self.names.items()}
        for name, row in spk2id.items():
            if name != str(row) and by_id.get(row, name) != name:
                raise UserError(
                    f"{self.path} is for other voices: its speaker {row} is '{by_id[row]}', the model's is '{name}'; "
                    f"run '{MAKER}' with the model's config.json, or name the model's own index"
                )

    def neighbours(self, units: Tensor, speaker_id: int) -> Tensor:
        """Average the 8 nearest training features of each of the units (T, C), weighted by 1/distance^2: (T, C).

        The distance is the squared Euclidean one. A unit that is itself a training feature, or whose probed lists are
        empty, is returned unchanged. Dtype and device are those of ``units``. Raises UserError if the index lacks the
        speaker or has features of another size.
        """
        if speaker_id not in self.indexes:
            there = ", ".join(map(str, self.indexes))
            raise UserError(f"{self.path} holds no features of speaker {speaker_id}, only of {there}; run '{MAKER}'")
        if units.shape[-1] != self.feature_size:
            raise UserError(
                f"{self.path} holds features of size {self.feature_size}, the speech encoder gives {units.shape[-1]}; "
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
    (T, C); log the result."""
    sample = query[:: -(-len(query) // SAMPLE_SIZE)]
    index.nprobe = index.nlist
    _, nearest = index.search(sample, NEIGHBOURS)
    index.nprobe = 1
    while (recall := _recall(index.search(sample, NEIGHBOURS)[1], nearest)) < MIN_RECALL and index.nprobe < index.nlist:
        index.nprobe = min(2 * index.nprobe, index.nlist)
    log.info("nprobe %d of %d lists finds %.1f %% of the nearest features", index.nprobe, index.nlist, 100 * recall)


def _recall(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> float:
    """Return the share of the ids ``nearest`` (T, K) that are in the same row of ``found``; -1 means no neighbour."""
    wanted = nearest >= 0
    return float((nearest[:, :, None] == found[:, None, :]).any(axis=2)[wanted].mean()) if wanted.any() else 1.0


def neighbour_weights(distances: NDArray[np.float32], found: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return weights (T, K) proportional to 1/distance^2; each row sums to 1, or to 0 if it found nothing.

    If a row has neighbours at distance 0, these share the whole weight.
    """
    distances = np.where(found, distances.astype(np.float64), np.inf)
    nearest = distances.min(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(nearest > 0, (nearest / distances) ** 2, distances == 0)
    weights = np.where(found, weights, 0)
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def load_feature_index(path: str | Path, nprobe: int | None = 1) -> FeatureIndex:
    """Read ``feature_and_index.pkl``. Raises UserError as ``read_indexes`` does, and for ``nprobe`` below 1."""
    return FeatureIndex(Path(path), read_indexes(path), nprobe, read_names(path))


def train_feature_index(config_path: str | Path, dataset: str | Path, path: str | Path) -> None:
    """Index the features in ``dataset`` of each speaker in ``spk`` of ``config.json``, and write them to ``path``.

    A speaker without a folder in ``dataset`` is left out with a warning. Raises UserError if no speaker has a folder, a
    folder has no features, a feature file is unusable, or ``path`` cannot be written.
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
    """Build the inverted-file index of the features (N, C). ``name`` labels the progress bar."""
    count, size = features.shape
    index = faiss.index_factory(size, f"IVF{list_count(count)},Flat")
    index.cp.min_points_per_centroid = 1  # otherwise faiss warns about a single list
    index.train(features)
    with progress(total=count, description=f"{name}, indexing", unit="feature") as bar:
        for start in range(0, count, BLOCK):
            index.add(features[start : start + BLOCK])
            bar.update(len(features[start : start + BLOCK]))
    return index


def list_count(features: int) -> int:
    """Return the number of lists for N features: the published min(16 sqrt(N), N / 39), at least one."""
    return max(1, min(int(16 * features**0.5), features // 39))
