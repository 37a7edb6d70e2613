"""Feature index and cluster centres in the files that MoeVoiceStudio reads beside a synthesizer's graph.

The host knows speakers by their place in ``Characters``, the order of ``spk`` in config.json:

``Index-<place>.index``  the speaker's index in faiss's format; read from place 0 on until one is missing
``KMeans.npy``           128 bytes of header, then float32 centres: ``KMeansLength`` rows a speaker, speakers in order
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from cluster.centres import MAKER as CENTRES_MAKER
from cluster.centres import load_cluster_model
from cluster.index_file import MAKER as INDEX_MAKER
from cluster.retrieval import load_feature_index
from modules.atomic_file import output_path, output_paths
from modules.config import Config, load_config
from modules.console import UserError
from onnxexport.metadata import CENTRES, index_file


def export_index(path: str | Path, config_path: str | Path, folder: str | Path) -> tuple[list[Path], dict[str, Any]]:
    """Write the index of each speaker of ``config_path`` to ``folder``, all files or none.

    Returns the files and the JSON's keys for them. Raises UserError if a file is missing, damaged, of other voices or
    of another feature size, if a speaker has no index, and if a file cannot be written.
    """
    config = read_config(config_path)
    speakers = config.spk
    index = load_feature_index(path)
    refuse_other_size(path, index.feature_size, config, INDEX_MAKER)
    index.check_speakers(speakers)
    refuse_absent(path, [name for name, row in speakers.items() if row not in index.indexes])
    files = {index_file(folder, place): index.indexes[row] for place, row in enumerate(speakers.values())}
    with output_paths(*files) as temporaries:
        for temporary, one in zip(temporaries, files.values(), strict=True):
            temporary.write_bytes(faiss.serialize_index(one).tobytes())
    return list(files), {"Cluster": "Index"}


def export_centres(path: str | Path, config_path: str | Path, folder: str | Path) -> tuple[list[Path], dict[str, Any]]:
    """Write the cluster centres of each speaker of ``config_path`` to ``folder``; returns as ``export_index``.

    Speakers with fewer centres than another get some of them repeatedly, which leaves the nearest one the same. Raises
    UserError as ``export_index``.
    """
    config = read_config(config_path)
    speakers = config.spk
    model = load_cluster_model(path)
    refuse_other_size(path, model.feature_size, config, CENTRES_MAKER)
    refuse_absent(path, [name for name in speakers if name not in model.centres])
    length = max(len(model.centres[name]) for name in speakers)
    table = np.concatenate([np.resize(model.centres[name], (length, model.feature_size)) for name in speakers])
    target = Path(folder) / CENTRES
    with output_path(target) as temporary, open(temporary, "wb") as file:
        np.save(file, table.astype("<f4"))
    return [target], {"Cluster": "KMeans", "KMeansLength": length}


def read_config(config_path: str | Path) -> Config:
    """Read a model's config.json. Raises UserError if it names no speakers."""
    config = load_config(config_path)
    if not config.spk:
        raise UserError(f"{config_path} names no speakers (spk), and the host knows them by their place in that list")
    return config


def refuse_other_size(path: str | Path, size: int, config: Config, maker: str) -> None:
    """Raise UserError if the features have another size than the model's units, among which the host looks."""
    if size != config.model.ssl_dim:
        raise UserError(
            f"{path} holds features of size {size}, and the model takes {config.model.ssl_dim} (ssl_dim); run "
            f"'{maker}' with the features of the model's speech encoder"
        )


def refuse_absent(path: str | Path, absent: list[str]) -> None:
    """Raise UserError if there are speakers without features."""
    if absent:
        raise UserError(
            f"{path} has no features of {', '.join(absent)}, and the host needs them of every speaker in config.json; "
            "make the file again with clips of all, or leave it out"
        )
