"""Check whether a predictor finds F0 in most of a song. Without F0 the result is whispered or out of tune."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modules.console import option
from modules.f0 import F0_PREDICTORS

SILENT = 1e-10  # power; 16-bit sound is louder or zero
REFERENCE = 95  # percentile of the frames' levels, so that a click does not set it
RANGE = 20.0  # dB below the reference that are still loud; most fricatives and breaths are quieter
ENOUGH = 0.5  # share of the loud frames; singing and speech have F0 in more


class Voicing:
    """Levels and voicing of all frames of a song, eight bytes a frame."""

    def __init__(self):
        self._levels: list[np.ndarray] = []
        self._voiced: list[np.ndarray] = []

    def add(self, audio: np.ndarray, uv: np.ndarray, hop_length: int) -> None:
        """Add a piece ``(L,)`` with its voicing ``(T,)``, 1 where a frame has F0."""
        frames = min(len(uv), len(audio) // hop_length)
        power = audio[: frames * hop_length].reshape(frames, hop_length).var(axis=1)  # the variance ignores a DC offset
        audible = power > SILENT  # skips the padding
        self._levels.append(10 * np.log10(power[audible]))
        self._voiced.append(uv[:frames][audible])

    @property
    def share(self) -> float:
        """Share of the loud frames that have F0; 1 without any frames.

        A frame is loud when its RMS is at most 20 dB below the level that one frame in twenty exceeds.
        """
        levels = np.concatenate([np.zeros(0), *self._levels])
        if len(levels) == 0:
            return 1.0
        loud = levels >= np.percentile(levels, REFERENCE) - RANGE
        return float(np.concatenate(self._voiced)[loud].mean())

    @property
    def is_lost(self) -> bool:
        return self.share < ENOUGH

    def warning(self, song: str | Path, key: str) -> str:
        """Return the warning for a song whose loud frames mostly have no F0 by the predictor ``key``."""
        row = F0_PREDICTORS[key]
        others = ", ".join(other for other in F0_PREDICTORS if other != key)
        lower = f", a lower {option('cr_threshold')}" if row.uses_threshold else ""
        return (
            f"{song}: {key} finds no F0 in {1 - self.share:.0%} of the loud frames (within {RANGE:.0f} dB of the "
            f"song's loudest), where pitch is guessed or missing. It finds {row.range}: try another predictor "
            f"({option('f0_predictor')} {others}){lower}, or a song that holds nothing but the voice"
        )
