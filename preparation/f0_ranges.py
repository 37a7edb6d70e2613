"""The F0 range of each speaker, which conversion needs to choose a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from modules.console import UserError
from modules.data.features import ClipFiles

PERCENTILES = (10, 50, 90)


def measure_f0_ranges(speakers: Mapping[str, Iterable[Path]]) -> dict[str, list[float]]:
    """Return PERCENTILES of the voiced F0 in Hz of each speaker's clips, from their sidecar files.

    Clips without a readable file are left out, and so are speakers without F0.
    """
    ranges = {}
    for name, clips in speakers.items():
        voiced = [np.zeros(0, np.float32)]
        for clip in clips:
            try:
                f0, uv = ClipFiles(clip).read_f0()
            except UserError:
                continue
            voiced.append(f0[(uv > 0) & (f0 > 0)])
        if len(f0 := np.concatenate(voiced)):
            ranges[name] = [round(float(value), 1) for value in np.percentile(f0, PERCENTILES)]
    return ranges
