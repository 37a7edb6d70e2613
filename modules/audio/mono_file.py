"""An audio file of any length, read in parts as mono audio with corrected level."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from soundfile import SoundFile

from modules.audio.files import BLOCK, display_name, no_sound, open_audio, read_block, read_blocks
from modules.audio.loudness import SHORTEST, LevelMeter, Levels
from modules.console import UserError, get_logger

log = get_logger("sound")

SAFE_PEAK = 0.98
OFFSET = 1e-3  # of full scale, or of a peak above it; a smaller mean is not treated as DC offset
CANCELLED = 10  # dB; channels cancel if their mean is fainter than the loudest one by more
ALIKE = 0.3  # correlation of two channels; below it they hardly hold one voice
MUCH_FAINTER = 20  # dB; a channel so far below the other does not disturb their mean
UNKNOWN = 0x7FFFF000  # bytes; WAV headers from pipes give this length or a greater one
TOLERANCE = 0.1  # seconds that may be missing, because encoders count their delay differently

# libsndfile's log line about a header that gives more bytes than the file has: WAV, AIFF, W64, RF64, AU.
TRUNCATED = re.compile(r"^ *(?:data|SSND|riff|Riff size|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
OGG_PAGE = 65307  # bytes at most


class MonoFile:
    """An audio file, its content, or a seekable file object, as mono float32, ``(n,)`` samples a part.

    Mono is the mean of the channels, or the loudest channel if they cancel each other. A DC offset is removed, and the
    whole file is lowered if its peak exceeds full scale. Every correction is logged. A file object can have one reader
    at a time; files and contents can be read by several threads.

    Raises UserError when the file is missing, not audio, damaged, empty, or holds NaN or infinity.
    """

    def __init__(self, source: str | os.PathLike | BinaryIO | bytes):
        self.path, self._source = display_name(source), source
        with open_audio(source) as file:
            self.sampling_rate: int = file.samplerate
        self._channel: int | None = None  # None: the mean
        self._offset, self._gain = 0.0, 1.0

    def measure(self, frame_length: int, hop_length: int) -> Levels:
        """Read the whole file once and return its levels, in frames as in ``frame_rms``; call it before ``parts``.

        Sets ``samples``, the length that was read, ``peak``, and ``cut_off``, a message if the end is missing.
        """
        totals, levels = self._scan(frame_length, hop_length)
        self._channel = totals.cancelled_channel()
        if self._channel is not None:
            log.info("%s: channel %d is used, since the mean of all is far fainter", self.path, self._channel + 1)
            totals, levels = self._scan(frame_length, hop_length)
        elif (likeness := totals.likeness()) is not None and likeness < ALIKE:
            log.warning(
                "%s: its two channels hold different sound (correlation %.2f), and their mean is used; if one of them "
                "is the voice, export only that one", self.path, likeness,
            )  # fmt: skip
        self.samples: int = totals.samples
        self.cut_off: str | None = self._describe_truncation()
        if self.cut_off:
            log.warning("%s", self.cut_off)
        mean, low, high = totals.mean[0], totals.low[0], totals.high[0]
        if abs(mean) > OFFSET * max(1, high, -low) and self.samples >= SHORTEST * self.sampling_rate:
            self._offset = mean
            log.info("%s: a DC offset of %.1f %% of full scale is taken out", self.path, 100 * mean)
        peak = max(high - self._offset, self._offset - low)
        if peak > 1:
            self._gain = SAFE_PEAK / peak
            log.info("%s: its peak is %.1f dB above full scale; the whole is lowered", self.path, 20 * np.log10(peak))
        self.peak: float = peak * self._gain
        return Levels(levels.rms * np.float32(self._gain), levels.above_rumble * np.float32(self._gain))

    @property
    def seconds(self) -> float:
        """The length that was read, in seconds."""
        return self.samples / self.sampling_rate

    def parts(self, ranges: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Yield the samples ``[start, end)`` of each range. Ranges are sorted by their start and may overlap.

        Needs memory for one range and one block.
        """
        buffer, position = np.zeros(0, np.float32), 0  # the samples before position
        with open_audio(self._source) as file:
            for start, end in ranges:
                while position < start:
                    position += len(self._read_exactly(file, min(start - position, BLOCK)))
                buffer = buffer[len(buffer) - (position - start) :]
                if end > position:
                    new = self._correct_level(self._mono(self._read_exactly(file, end - position)))
                    buffer, position = np.concatenate((buffer, new)), end
                yield buffer[: end - start]

    def _read_exactly(self, file: SoundFile, samples: int) -> np.ndarray:
        block = read_block(file, samples)
        if len(block) < samples:
            raise UserError(f"{self.path} was changed while it was read; run it again")
        return block

    def read(self) -> np.ndarray:
        """Return all samples, ``(samples,)``."""
        return np.concatenate(list(self.parts([(0, self.samples)])))

    def _scan(self, frame_length: int, hop_length: int) -> tuple[_Totals, Levels]:
        totals, meter = _Totals(), LevelMeter(self.sampling_rate, frame_length, hop_length)
        with open_audio(self._source) as file:
            self._frames, self._notes, self._format = file.frames, file.extra_info, file.format
            for block in read_blocks(file):
                mono = self._mono(block)
                totals.add(mono, block)
                meter.add(mono)
        if totals.samples == 0:
            raise no_sound(self.path)
        return totals, meter.finish()

    def _mono(self, block: np.ndarray) -> np.ndarray:
        return block.mean(axis=1) if self._channel is None else block[:, self._channel]

    def _correct_level(self, mono: np.ndarray) -> np.ndarray:
        if self._offset:
            mono = mono - np.float32(self._offset)
        return mono * np.float32(self._gain) if self._gain != 1 else mono

    def _describe_truncation(self) -> str | None:
        """Return a message if the header gives more audio than was read or the end-of-stream mark is missing."""
        promised = self._frames if self._frames < 1 << 60 else 0  # FLAC from a pipe gives the highest number
        if found := TRUNCATED.search(self._notes):
            declared, present = map(int, found.groups())
            promised = self.samples * declared // max(present, 1) if declared < UNKNOWN else 0
        cure = "copy or export it again"
        if promised > self.samples + TOLERANCE * self.sampling_rate:
            whole = promised / self.sampling_rate
            return f"{self.path} is cut off: its header gives {whole:.1f} s, {self.seconds:.1f} s are there; {cure}"
        if self._format == "OGG" and isinstance(self._source, str | os.PathLike) and _lacks_ogg_end(self.path):
            return f"{self.path} is cut off: {self.seconds:.1f} s are there, without the mark of their end; {cure}"
        return None


def _lacks_ogg_end(path: Path) -> bool:
    """Return whether the last page of an Ogg file (RFC 3533) lacks the end-of-stream flag."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - OGG_PAGE))
        tail = file.read()
    page = tail.rfind(b"OggS")
    return page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4


class _Totals:
    """Sums and extremes of the mono audio, followed by those of each channel: ``(1 + channels,)``."""

    def __init__(self):
        self.samples, self.sum, self.squares, self.low, self.high = 0, 0.0, 0.0, np.inf, -np.inf

    def add(self, mono: np.ndarray, block: np.ndarray) -> None:
        """Add ``(n,)`` mono samples and the ``(n, channels)`` that they were mixed from."""
        columns = [mono, *block.T] if block.shape[1] > 1 else [mono]
        self.samples += len(mono)
        self.sum = self.sum + np.array([column.sum(dtype=np.float64) for column in columns])
        self.squares = self.squares + np.array([np.square(column, dtype=np.float64).sum() for column in columns])
        self.low = np.minimum(self.low, [column.min() for column in columns])
        self.high = np.maximum(self.high, [column.max() for column in columns])

    @property
    def mean(self) -> np.ndarray:
        return self.sum / self.samples

    def likeness(self) -> float | None:
        """Return the correlation of two channels; None for another number, or if one is silent or much fainter."""
        power = self.squares / self.samples - self.mean**2
        if len(power) != 3 or power[1:].min() <= power[1:].max() * 10 ** (-MUCH_FAINTER / 10):
            return None
        mean, left, right = power
        return float((4 * mean - left - right) / (2 * np.sqrt(left * right)))

    def cancelled_channel(self) -> int | None:
        """Return the loudest channel if it is louder than the mean of all by more than CANCELLED dB, else None."""
        power = self.squares / self.samples - self.mean**2
        if len(power) == 1:
            return None
        loudest = int(power[1:].argmax())
        return loudest if power[1 + loudest] > max(power[0], 0) * 10 ** (CANCELLED / 10) else None
