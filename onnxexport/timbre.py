"""Feature index and cluster centres in the files that MoeVoiceStudio reads beside a synthesizer's graph.

The host knows speakers by their place in ``Characters``, the order of ``spk`` in config.json:

``Index-<place>.index``  the speaker's index in faiss's format; read from place 0 on until one is missing
``KMeans.npy``           128 bytes of header, then float32 centres: ``KMeansLength`` rows a speaker, speakers in order
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import faiss
import numpy as np

from cluster.centres import load_cluster_model
from cluster.retrieval import load_feature_index
from modules.atomic_file import output_path, output_paths
from modules.config import load_config
from modules.console import UserError
from onnxexport.metadata import CENTRES, index_file


def export_index(path: str | Path, config_path: str | Path, folder: str | Path) -> list[Path]:
    """Write the index of each speaker of ``config_path`` to ``folder``, all files or none; returns the files.

    Raises UserError if a file is missing, damaged or of other voices, if a speaker has no index, and if a file cannot
    be written.
    """
    speakers = read_speakers(config_path)
    index = load_feature_index(path)
    index.check_speakers(speakers)
    refuse_absent(path, [name for name, row in speakers.items() if row not in index.indexes])
    files = {index_file(folder, place): index.indexes[row] for place, row in enumerate(speakers.values())}
    with output_paths(*files) as temporaries:
        for temporary, one in zip(temporaries, files.values(), strict=True):
            temporary.write_bytes(faiss.serialize_index(one).tobytes())
    return list(files)


def export_centres(path: str | Path, config_path: str | Path, folder: str | Path) -> list[Path]:
    """Write the cluster centres of each speaker of ``config_path`` to ``folder``; returns the file in a list.

    Speakers with fewer centres than another get some of them repeatedly, which leaves the nearest one the same. Raises
    UserError as ``export_index``, and if ``folder`` has an index, which the host would read instead.
    """
    speakers = read_speakers(config_path)
    model = load_cluster_model(path)
    refuse_absent(path, [name for name in speakers if name not in model.centres])
    if (index := index_file(folder, 0)).exists():
        raise UserError(f"{folder} has {index.name}, and the host reads one kind of timbre; move its index files away")
    length = max(len(model.centres[name]) for name in speakers)
    table = np.concatenate([np.resize(model.centres[name], (length, model.feature_size)) for name in speakers])
    target = Path(folder) / CENTRES
    with output_path(target) as temporary, open(temporary, "wb") as file:
        np.save(file, table.astype("<f4"))
    return [target]


def read_speakers(config_path: str | Path) -> Mapping[str, int]:
    """Read speaker name -> embedding row, in order of place. Raises UserError if there are no names."""
    speakers = load_config(config_path).spk
    if not speakers:
        raise UserError(f"{config_path} names no speakers (spk), and the host knows them by their place in that list")
    return speakers


def refuse_absent(path: str | Path, absent: list[str]) -> None:
    """Raise UserError if there are speakers without features."""
    if absent:
        raise UserError(
            f"{path} has no features of {', '.join(absent)}, and the host needs them of every speaker in config.json; "
            "make the file again with clips of all, or leave it out"
        )
