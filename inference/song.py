"""A song on disk, read in spans, so that memory does not grow with its length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np

from modules.audio.files import as_wav
from modules.audio.mono_file import MonoFile
from modules.audio.slicer import Chunk, Slicer
from modules.console import UserError, option


class Song(MonoFile):
    """A sound file of any readable format, a file object, or an array with its rate in Hz.

    Arrays are ``(samples,)`` or ``(samples, channels)``. The levels are measured on opening. Raises UserError as
    MonoFile.
    """

    def __init__(self, source: str | Path | BinaryIO | tuple[np.ndarray, int]):
        super().__init__(as_wav(*source) if isinstance(source, tuple) else source)
        slicer = Slicer(self.sampling_rate)
        self._levels = self.measure(slicer.window, slicer.hop)
        self._chunks: dict[float, list[Chunk]] = {}

    def chunks(self, threshold: float = -40) -> list[Chunk]:
        """Return the song's slices, either silence or sound; what is below the ``threshold`` in dB is silence.

        Raises UserError if the whole song is silent or quieter than the threshold.
        """
        if self.peak < 1 / 65536:
            raise UserError(f"{self.path} holds only silence")
        if threshold not in self._chunks:
            slicer = Slicer(self.sampling_rate, threshold)
            curve = self._levels.curve(slicer.limit)
            if len(curve) > 1 and curve.max() < slicer.limit:
                loudest = 20 * math.log10(max(curve.max(), 1e-6))
                lower = max(-120, 10 * math.floor(loudest / 10 - 1))
                raise UserError(
                    f"the loudest moment of {self.path} is {loudest:.0f} dB, and sound below {threshold:g} dB "
                    f"({option('slice_db')}) counts as silence; normalise the song, or give "
                    f"{option('slice_db', lower)}"
                )
            chunks = slicer.slice_curve(curve, self.samples)
            self._chunks[threshold] = [chunk for chunk in chunks if chunk.end > chunk.start]
        return self._chunks[threshold]

    def quietest(self, first: int, last: int) -> int:
        """Return the sample between two, both included, around which the song is quietest."""
        hop = Slicer(self.sampling_rate).hop
        rms = self._levels.rms[first // hop : last // hop + 1]
        return min(max(first, (first // hop + int(rms.argmin())) * hop), last)
