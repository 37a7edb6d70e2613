"""The content units of a speaker's clips as one table, a row a frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.console import UserError, progress
from modules.data.features import MAKER, ClipFiles

ENDING = ".wav.soft.pt"


def find_features(speakers: Iterable[Path]) -> dict[str, list[Path]]:
    """Name of each speaker's folder -> its files of units, in alphabetical order, hidden ones left out.

    Raises UserError naming every folder that has none or is not there.
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
    """The units of all ``paths``, one after the other: (frames, C). ``name`` is what the progress bar says.

    Raises UserError naming a file that is damaged, not finite, or of another size than ``size`` or the first one's.
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
