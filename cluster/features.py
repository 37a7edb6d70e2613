"""Read the content units of a speaker's clips into one table with one row per frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.console import UserError, progress
from modules.data.features import MAKER, ClipFiles

ENDING = ".wav.soft.pt"


def find_features(speakers: Iterable[Path]) -> dict[str, list[Path]]:
    """Map the name of each speaker's folder to its unit files, in alphabetical order and without hidden files.

    Raises UserError, which names each folder that is missing or has no unit files.
    """
    folders = list(speakers)
    found = {
        folder.name: sorted(path for path in folder.glob(f"*{ENDING}") if not path.name.startswith("."))
        for folder in folders
    }
    if without := [str(folder) for folder in folders if not found[folder.name]]:
        raise UserError(
            f"no features (*{ENDING}) are in {', '.join(without)}; run '{MAKER}', or leave out the speakers without"
        )
    return found


def read_features(paths: list[Path], name: str, size: int | None = None) -> NDArray[np.float32]:
    """Concatenate the units of all ``paths``: (frames, C). ``name`` labels the progress bar.

    Raises UserError, which names the file, if it is damaged, not finite, or its C differs from ``size`` or the first
    file's C.
    """
    tables = []
    for path in progress(paths, description=f"{name}, reading", unit="clip"):
        units = ClipFiles(path.with_name(path.name.removesuffix(".soft.pt"))).read_units()[0].T.numpy()
        size = size or units.shape[1]
        if units.shape[1] != size:
            raise UserError(
                f"{path} holds features of size {units.shape[1]}, those before it have {size}; "
                f"delete what another speech encoder made and run '{MAKER}'"
            )
        if not np.isfinite(units).all():
            raise UserError(f"{path} holds values that are not finite; delete it and run '{MAKER}'")
        tables.append(units)
    return np.concatenate(tables)
