"""The picture of the data: for each speaker, the lengths of the files, their loud and faint levels, and F0."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modules.atomic_file import obstacle, output_path, reason
from modules.console import UserError, option

if TYPE_CHECKING:
    from checkup.sound import Speaker

MOST_DRAWN = 12  # speakers
BINS = 30
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def refuse_target(path: Path) -> None:
    """Raise UserError if ``path`` is no name of a PNG, is another file than a PNG, or cannot be written."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option('data')} draws a PNG; let the name {path} end in .png")
    if os.path.isdir(path):
        raise UserError(f"{path} cannot be written: it is a folder")
    if why := obstacle(path.parent):
        raise UserError(f"{path} cannot be written: {why}")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        if path.exists() and not _is_png(path):
            raise UserError(f"{path} is a file, and no PNG; it is not overwritten: choose another name")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as failure:
        raise UserError(f"{path} cannot be written: {reason(failure)}") from None


def _is_png(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def draw(speakers: Sequence[Speaker], path: Path) -> None:
    """Draw a row of histograms for each speaker to a PNG. Raises UserError if it cannot be written."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    speakers = speakers[:MOST_DRAWN]
    figure = Figure(figsize=(14, 2.6 * len(speakers)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(speakers), 3, squeeze=False)
    for (lengths, levels, f0), speaker in zip(rows, speakers, strict=True):
        lengths.hist(speaker.of("seconds"), BINS)
        lengths.set(xlabel="seconds", ylabel=f"{speaker.name}\n{speaker.minutes:.1f} minutes")
        levels.hist([speaker.of("level"), speaker.of("floor")], BINS, label=["loud", "faint"])
        levels.set(xlabel="dB of full scale")
        levels.legend()
        hertz = np.array(list(speaker.f0.values())).reshape(-1, 3)
        if len(hertz):
            f0.hist(list(hertz.T), BINS, label=["10 %", "median", "90 %"])
            f0.legend()
        f0.set(xlabel="F0 of the clips in Hz")
    with output_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
