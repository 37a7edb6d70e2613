"""The F0 range of each speaker, which conversion needs to choose a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from modules.config import load_config, save_config
from modules.console import UserError, get_logger
from modules.data.features import ClipFiles, find_clips
from modules.training import distributed

log = get_logger("features")

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


def store_f0_ranges(folder: str | Path, path: str | Path) -> None:
    """Measure the F0 ranges of the clips in ``folder`` and write them to the configuration at ``path`` if they changed.

    Processes that do not wait for each other may still write F0; the ranges are then those of a later run.
    """
    if distributed.launch_world_size() > 1 and not distributed.has_rendezvous():
        log.info("the speakers' F0 ranges are left out, which need all clips: run stage 3 once more, in one process")
        return
    config, ranges = load_config(path), measure_f0_ranges(find_clips(folder))
    if ranges != config.f0:
        config.f0 = ranges
        save_config(config, path)
        log.info("%s: F0 ranges of %d speakers, from which conversion can choose a key", path, len(ranges))
