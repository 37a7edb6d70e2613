"""Cut a recording where it is silent.

Sound is looked at in frames of ``hop_size`` milliseconds. A run of silent frames that is long enough, and far enough
from the last cut, is cut where it is quietest; what of a long silence lies farther than ``max_sil_kept`` from sound on
both sides becomes a silent chunk of its own::

    sound ~~~~~~~~|....silence....|~~~~~~~~ sound        up to max_sil_kept: one cut, a silent chunk of length 0
    sound ~~~~~~~~|..|  chunk  |..|~~~~~~~~ sound        longer: what is kept of it stays with its neighbours
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
    """Where to cut; ``threshold`` in dB below full scale, the other lengths in milliseconds."""

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
        """Samples from one frame to the next."""
        return round(self.sampling_rate * self.hop_size / 1000)

    @property
    def window(self) -> int:
        """Samples that a frame's loudness is measured over."""
        return min(round(self.sampling_rate * self.min_interval / 1000), 4 * self.hop)

    @property
    def limit(self) -> float:
        """The loudness of the threshold."""
        return 10 ** (self.threshold / 20)

    def frames(self, milliseconds: float) -> int:
        return round(self.sampling_rate * milliseconds / 1000 / self.hop)

    def slice(self, audio: np.ndarray) -> list[Chunk]:
        """Chunks of ``(L,)``: sounding and silent ones in turn, together the whole; silent ones may be empty."""
        return self.slice_curve(frame_rms(audio, self.window, self.hop), len(audio))

    def slice_curve(self, rms: np.ndarray, samples: int) -> list[Chunk]:
        """The same from the loudness curve alone, ``frame_rms(audio, window, hop)``, of a recording of that length."""
        if samples <= self.frames(self.min_length):  # samples against frames: the published comparison
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
        """Ranges of frames to take out; an empty one is a mere cut."""
        kept, interval, length = map(self.frames, (self.max_sil_kept, self.min_interval, self.min_length))
        last_cut = 0
        for start, end in _silent_runs(rms < self.limit):
            if end == len(rms):
                if end - start >= interval:
                    yield _quietest(rms, start, min(end, start + kept)), end + 1
            elif (start == 0 and end > kept) or (end - start >= interval and end - last_cut >= length):
                first, last = _place_cut(rms, start, end, kept)
                yield (0, last) if start == 0 else (first, last)
                last_cut = last


def _silent_runs(silent: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges ``[start, end)`` of consecutive silent frames."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent, [0]))))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _place_cut(rms: np.ndarray, start: int, end: int, kept: int) -> tuple[int, int]:
    """The frames to take out of the silence ``[start, end)`` so that at most ``kept`` frames remain on either side."""
    if end - start <= kept:
        place = _quietest(rms, start, end)
        return place, place
    left, right = _quietest(rms, start, start + kept), _quietest(rms, end - kept, end)
    if end - start <= 2 * kept:
        place = _quietest(rms, end - kept, start + kept)
        return min(left, place), max(right, place)
    return left, right


def _quietest(rms: np.ndarray, first: int, last: int) -> int:
    """The first of the quietest frames from ``first`` to ``last``, both included."""
    return first + int(rms[first : last + 1].argmin())
