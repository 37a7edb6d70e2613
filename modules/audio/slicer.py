"""Cut a recording at its silences.

The level is measured in frames of ``hop_size`` milliseconds. A run of silent frames that is long enough, and far enough
from the last cut, is cut at its quietest frame. The part of a long silence that is farther than ``max_sil_kept`` from
the sound on both sides becomes a silent chunk::

    sound ~~~~~~~~|....silence....|~~~~~~~~ sound        up to max_sil_kept: one cut, a silent chunk of length 0
    sound ~~~~~~~~|..|  chunk  |..|~~~~~~~~ sound        longer: up to max_sil_kept stays with each neighbour
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modules.audio.loudness import frame_rms
from modules.console import UserError


@dataclass(frozen=True)
class Chunk:
    """Samples ``[start, end)`` of a recording."""

    is_silence: bool
    start: int
    end: int


@dataclass(frozen=True)
class Slicer:
    """Settings of the cuts: ``threshold`` in dB relative to full scale, lengths in milliseconds."""

    sampling_rate: int
    threshold: float = -40
    min_length: float = 5000  # between two cuts
    min_interval: float = 300  # of a silence that is cut
    hop_size: float = 20
    max_sil_kept: float = 5000

    def __post_init__(self):
        if not self.min_length >= self.min_interval >= self.hop_size > 0 or self.max_sil_kept < self.hop_size:
            raise UserError(
                f"the slicer needs min_length >= min_interval >= hop_size and max_sil_kept >= hop_size (milliseconds); "
                f"found {self.min_length:g}, {self.min_interval:g}, {self.hop_size:g} and {self.max_sil_kept:g}"
            )

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return round(self.sampling_rate * self.hop_size / 1000)

    @property
    def window(self) -> int:
        """Samples over which a frame's loudness is measured."""
        return min(round(self.sampling_rate * self.min_interval / 1000), 4 * self.hop)

    @property
    def limit(self) -> float:
        """The threshold as an amplitude."""
        return 10 ** (self.threshold / 20)

    def frames(self, milliseconds: float) -> int:
        return round(self.sampling_rate * milliseconds / 1000 / self.hop)

    def slice(self, audio: np.ndarray) -> list[Chunk]:
        """Return the chunks of ``(L,)``, alternately sounding and silent, without gaps; silent ones may be empty."""
        return self.slice_curve(frame_rms(audio, self.window, self.hop), len(audio))

    def slice_curve(self, rms: np.ndarray, samples: int) -> list[Chunk]:
        """Return the chunks as ``slice``, from the curve ``frame_rms(audio, window, hop)`` of ``samples`` samples."""
        if samples <= self.frames(self.min_length):  # compares samples with frames, as published
            return [Chunk(False, 0, samples)]
        chunks, done = [], 0
        for first, last in self._cuts(rms):
            start, end = min(first * self.hop, samples), min(last * self.hop, samples)
            if start > 0:
                chunks.append(Chunk(False, done, start))
            chunks.append(Chunk(True, start, end))
            done = end
        if done < samples:
            chunks.append(Chunk(False, done, samples))
        return chunks

    def _cuts(self, rms: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield ranges of frames to remove; an empty range is a cut."""
        kept, interval, length = map(self.frames, (self.max_sil_kept, self.min_interval, self.min_length))
        last_cut = 0
        for start, end in _silent_runs(rms < self.limit):
            if end == len(rms):
                if end - start >= interval:
                    yield _quietest(rms, start, min(end, start + kept)), end + 1
            elif (start == 0 and end > kept) or (end - start >= interval and end - last_cut >= length):
                first, last = _choose_cut(rms, start, end, kept)
                yield (0, last) if start == 0 else (first, last)
                last_cut = last


def _silent_runs(silent: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return the ranges ``[start, end)`` of consecutive silent frames."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent, [0]))))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _choose_cut(rms: np.ndarray, start: int, end: int, kept: int) -> tuple[int, int]:
    """Return the frames to remove from the silence ``[start, end)``; at most ``kept`` frames remain on either side."""
    if end - start <= kept:
        frame = _quietest(rms, start, end)
        return frame, frame
    return _quietest(rms, start, start + kept), _quietest(rms, end - kept, end)


def _quietest(rms: np.ndarray, first: int, last: int) -> int:
    """Return the first of the quietest frames from ``first`` to ``last``, both included."""
    return first + int(rms[first : last + 1].argmin())
