"""A song on disk, read slice by slice, so that its length costs no memory."""

from __future__ import annotations

from collections.abc import Iterator
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

    def slices(self, threshold: float = -40) -> Iterator[tuple[int, bool, np.ndarray]]:
        """Yield (first sample, whether it is silence, audio (n,) float32) of consecutive slices, together the song.

        The file is read twice: for its loudness, then for the slices.
        """
        chunks = self.chunks(threshold)
        audios = self._read([chunk.end - chunk.start for chunk in chunks])
        for chunk, audio in zip(chunks, audios, strict=True):
            yield chunk.start, chunk.is_silence, audio

    def _read(self, lengths: list[int] | None = None) -> Iterator[np.ndarray]:
        """Consecutive mono parts of these lengths in samples; in blocks to the end when None."""
        with open_audio(self.path) as file:
            for length in [BLOCK] * (file.frames // BLOCK + 1) if lengths is None else lengths:
                try:
                    audio = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
                except (RuntimeError, ValueError) as error:
                    raise UserError(f"{self.path} is damaged: {error}") from None
                if not np.isfinite(audio).all():
                    raise UserError(f"{self.path} holds NaN or infinite samples; export it again or leave it out")
                yield audio
