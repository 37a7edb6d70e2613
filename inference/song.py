"""A song on disk, read span by span, so that its length costs no memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from modules.audio import BLOCK, frame_rms, open_audio
from modules.console import UserError
from modules.slicer import Chunk, Slicer


class Song:
    """A sound file of any readable format; mono, the mean of its channels. Raises UserError as read_audio does."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with open_audio(path) as file:
            self.sampling_rate: int = file.samplerate
            self.seconds: float = file.frames / file.samplerate
        if self.seconds == 0:
            raise UserError(f"{path} holds no sound: its length is 0 samples")
        self._chunks: dict[float, list[Chunk]] = {}

    def chunks(self, threshold: float = -40) -> list[Chunk]:
        """Where the song's slices lie by its loudness, measured once; ``threshold`` in dB is the slicer's."""
        if threshold not in self._chunks:
            slicer = Slicer(self.sampling_rate, threshold)
            samples = 0

            def measured() -> Iterator[np.ndarray]:
                nonlocal samples
                for block in self._read():
                    samples += len(block)
                    yield block

            curve = frame_rms(measured(), slicer.window, slicer.hop)
            chunks = [chunk for chunk in slicer.slice_curve(curve, samples) if chunk.end > chunk.start]
            if not chunks:
                raise UserError(f"{self.path} is damaged: no sound can be read from it")
            self._chunks[threshold] = chunks
        return self._chunks[threshold]

    def spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Yield the audio (end - start,) float32 of spans (start, end) in samples, read once from front to back.

        No span may start before the one before it; they may overlap. Memory is one span and a block.
        """
        blocks, held, first = self._read(), np.zeros(0, np.float32), 0
        for start, end in spans:
            while first + len(held) < end:
                block = next(blocks)
                unused = min(max(start - first, 0), len(held))
                held, first = np.concatenate((held[unused:], block)), first + unused
            yield held[start - first : end - first]

    def _read(self) -> Iterator[np.ndarray]:
        """Consecutive mono blocks, to the end."""
        with open_audio(self.path) as file:
            for _ in range(file.frames // BLOCK + 1):
                try:
                    audio = file.read(BLOCK, dtype="float32", always_2d=True).mean(axis=1)
                except (RuntimeError, ValueError) as error:
                    raise UserError(f"{self.path} is damaged: {error}") from None
                if not np.isfinite(audio).all():
                    raise UserError(f"{self.path} holds NaN or infinite samples; export it again or leave it out")
                yield audio
