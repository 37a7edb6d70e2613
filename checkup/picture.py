"""The picture of the data: for each speaker, the lengths of the files, their loud and faint levels, and F0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modules.atomic_file import output_path

if TYPE_CHECKING:
    from checkup.sound import Speaker

MOST_DRAWN = 12  # speakers
BINS = 30


def draw(speakers: Sequence[Speaker], path: Path) -> None:
    """Draw a row of histograms for each speaker to a PNG. Raises UserError if it cannot be written."""
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
