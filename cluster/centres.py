"""``kmeans_10000.pt``: the cluster centres of each speaker, in the format of so-vits-svc 4.1."""

from __future__ import annotations

import pickle
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.features import find_features, read_features
from cluster.kmeans import k_means, refuse_missing_gpu
from modules.atomic_file import output_path
from modules.console import UserError, get_logger, option
from modules.data.features import find_clips
from modules.data.file_name import speaker_flaw
from modules.untrusted.safe_pickle import load_torch_arrays

MAKER = "python cluster/train_cluster.py"


@dataclass(frozen=True)
class ClusterModel:
    """The centres (K, C) float32 of each speaker, by name; C is the same for all, K may differ."""

    path: Path
    centres: Mapping[str, NDArray[np.float32]]

    @property
    def feature_size(self) -> int:
        return next(iter(self.centres.values())).shape[1]

    @property
    def speakers(self) -> list[str]:
        return list(self.centres)

    def nearest(self, units: Tensor, speaker: str) -> Tensor:
        """Return the speaker's nearest centre for each of the units (T, C): (T, C), dtype and device as ``units``.

        Raises UserError if the model lacks the speaker or has features of another size.
        """
        if speaker not in self.centres:
            there = ", ".join(self.centres)
            raise UserError(f"{self.path} holds no centres of '{speaker}', only of {there}; run '{MAKER}' again")
        if units.shape[-1] != self.feature_size:
            raise UserError(
                f"{self.path} holds features of size {self.feature_size}, the speech encoder gives {units.shape[-1]}; "
                f"run '{MAKER}' with the features of this encoder"
            )
        centres = self.centres[speaker]
        labels = nearest_labels(units.detach().to("cpu", torch.float32).numpy(), centres)
        return torch.from_numpy(centres[labels]).to(units)


def nearest_labels(features: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the row of ``centres`` (K, C) nearest to each of the features (T, C), by exhaustive search: (T,)."""
    return faiss.knn(np.ascontiguousarray(features), centres, 1)[1][:, 0]


def load_cluster_model(path: str | Path) -> ClusterModel:
    """Read a file of centres; takes memory of up to about ten times the file's size.

    Raises UserError if the file is missing or damaged, or holds anything but arrays of centres.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no file {path}; '{MAKER}' makes it, or convert with {option('cluster_infer_ratio', 0)}"
        )
    with open(path, "rb") as file:
        if b"IndexIVFFlat" in file.read(128):
            used = f"which is used with {option('feature_retrieval', True)}"
            raise UserError(f"{path} holds no cluster centres but a feature index, {used}")
    saved = load_torch_arrays(path)
    try:
        arrays = {str(name): saved[name]["cluster_centers_"] for name in saved}
        tables = {id(array): _as_centres(array) for array in arrays.values()}  # convert shared arrays once
        centres = {name: tables[id(array)] for name, array in arrays.items()}
        (_,) = {len(rows[0]) for rows in centres.values()}
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"{path} holds no cluster centres by speaker; run '{MAKER}' again") from None
    return ClusterModel(path, centres)


def _as_centres(array: Any) -> NDArray[np.float32]:
    if not isinstance(array, np.ndarray):
        raise TypeError
    centres = np.ascontiguousarray(array, dtype=np.float32)
    if centres.ndim != 2 or not centres.size or not np.isfinite(centres).all():
        raise ValueError
    return centres


def train_cluster_model(dataset: str | Path, path: str | Path, count: int, gpu: bool = False) -> None:
    """Compute up to ``count`` centres for each speaker's folder in ``dataset`` and write them to ``path``.

    Raises UserError if a speaker has no features, a feature file is unusable, or ``path`` cannot be written.
    """
    if gpu:
        refuse_missing_gpu()
    log, centres, size = get_logger("cluster").info, {}, None
    for name, files in find_features(_folders(Path(dataset))).items():
        features = read_features(files, name, size)
        size = features.shape[1]
        centres[name] = k_means(features, count, gpu=gpu, name=name)
        few = f"; too few (different) ones for {count:,}" if len(centres[name]) < count else ""
        log(f"{name}: {len(centres[name]):,} centres of {len(features):,} features{few}")
    save_cluster_model(path, centres)
    log(f"{path}: centres of {len(centres)} speakers, features of size {size}")


def _folders(dataset: Path) -> list[Path]:
    """Return the speakers' folders. Folders with names that other stages refuse are left out with a warning, unless
    there are no others. Raises UserError if there are no folders."""
    flaws = {dataset / name: speaker_flaw(name) for name in find_clips(dataset)}
    fit = [folder for folder, flaw in flaws.items() if not flaw]
    for folder in set(flaws).difference(fit) if fit else ():
        get_logger("cluster").warning("left out: %s %s", folder, flaws[folder])
    return fit or list(flaws)


def save_cluster_model(path: str | Path, centres: Mapping[str, NDArray[np.float32]]) -> None:
    """Write each speaker's centres (K, C), atomically. Raises UserError if the file cannot be written."""
    saved = {  # the attributes that so-vits-svc 4.1 sets on scikit-learn's KMeans
        name: {"n_features_in_": rows.shape[1], "_n_threads": 4, "cluster_centers_": rows}
        for name, rows in centres.items()
    }
    with output_path(path, RuntimeError) as temporary, open(temporary, "wb") as file:
        torch.save(saved, file, pickle_module=_PICKLE)


class _Pickler(pickle.Pickler):
    """Pickles arrays by names that every numpy version has; numpy before 1.26 cannot read numpy 2's own pickles."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray:
            return np.ndarray, ((0,), value.dtype), value.__reduce__()[2]
        return NotImplemented


_PICKLE = types.SimpleNamespace(__name__="array_pickle", Pickler=_Pickler)
