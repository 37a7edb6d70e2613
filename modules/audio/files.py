"""Read, write and resample sound.

Sound is float32 in [-1, 1], mono, ``(L,)`` samples, wherever nothing else is said.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from modules.atomic_file import output_path, reason
from modules.audio import ffmpeg
from modules.audio.torchaudio_guard import import_torchaudio
from modules.console import UserError

if TYPE_CHECKING:  # torch is imported where it is used: the stages that only handle files start without it
    import torch
    from torch import Tensor

BLOCK = 1 << 20  # samples that are worked on at once where a whole recording need not be in memory
SIXTEEN_BIT = ("WAV", "FLAC", "AIFF", "CAF", "W64", "RF64")
RATES = (1000, 1_000_000)  # Hz that a header may give
LARGEST_KERNEL = 1 << 23  # values, 64 MiB while it is made; ordinary rates need a fiftieth

# -- files ------------------------------------------------------------------------------------------------------------


def read_audio(path: str | os.PathLike, sampling_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read any file that libsndfile or ffmpeg knows (wav, flac, ogg, mp3, ...) as mono, the mean of its channels.

    Returns ``(L,)`` float32 and its rate: the file's own, or ``sampling_rate``, resampled to it, when that is given.
    Raises UserError naming the file when it is missing, not audio, damaged, empty, or holds NaN or infinity.
    """
    with open_audio(path) as file:
        rate = file.samplerate
        blocks = list(read_blocks(file))
    if not blocks:
        raise no_sound(path)
    audio = np.concatenate([block.mean(axis=1) for block in blocks])
    if sampling_rate is None or sampling_rate == rate:
        return audio, rate
    return resample(audio, rate, sampling_rate), sampling_rate


def open_audio(path: str | os.PathLike) -> _InOrder:
    """Open a sound file for reading in pieces. Raises UserError when it is missing or not audio.

    What libsndfile does not read is decoded by ffmpeg if its suffix or its first bytes say that it is sound
    (modules/audio/ffmpeg.py).
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}")
    try:
        source = ffmpeg.decoded(path) if ffmpeg.is_needed(path) else path
        name = os.fspath(source) if os.name == "nt" else os.fsencode(source)  # which need not be Unicode
        file = _InOrder(name)
        file.shown = os.fspath(path)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as audio: {reason(error)}; export it again, as wav or flac") from None
    if not RATES[0] <= file.samplerate <= RATES[1]:
        file.close()
        raise UserError(f"{path} cannot be read: its header gives a rate of {file.samplerate} Hz; export it again")
    return file


class _InOrder(soundfile.SoundFile):
    """soundfile.SoundFile seeks after every read, which fails at the end of FLAC whose header gives no length.

    ``shown`` is the path for messages.
    """

    shown: str

    def seekable(self) -> bool:
        return False


def read_blocks(file: _InOrder) -> Iterator[np.ndarray]:
    """The rest of a file that open_audio opened, as ``(n, channels)`` float32, whatever length its header gives: n
    times channels is BLOCK at most.

    Raises UserError when it is damaged or holds NaN or infinity.
    """
    while len(block := read_block(file, max(1, BLOCK // file.channels))):
        yield block


def read_block(file: _InOrder, samples: int) -> np.ndarray:
    """The next ``samples`` of it or what there is, as ``read_blocks``."""
    path = file.shown
    try:
        block = file.read(samples, dtype="float32", always_2d=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {reason(error)}; copy or export it again") from None
    if not np.isfinite(block).all():
        raise UserError(f"{path} holds NaN or infinite samples; export it again or leave it out")
    return block


def no_sound(path: str | os.PathLike) -> UserError:
    """The error for a file of no samples."""
    size = os.path.getsize(path)
    if size < 1000:
        return UserError(f"{path} holds no sound: its length is 0 samples")
    return UserError(
        f"{path} holds {size} bytes, but its header gives a length of 0 samples, as programs write it that send sound "
        "through a pipe; let them write a file, or export it again"
    )


def write_audio(
    path: str | os.PathLike, audio: np.ndarray | Iterable[np.ndarray], rate: int, format: str | None = None
) -> None:
    """Write ``(L,)`` samples, whole or not at all; values beyond [-1, 1] are held at the ends of that range.

    ``audio`` may come as consecutive pieces that are made while it is written. ``format`` is a name of libsndfile's
    ("wav", "flac", "ogg", "mp3", ...); None takes it from the suffix. Formats that can are written with 16 bits.
    Raises UserError when the format is unknown or the file cannot be written.
    """
    kind, subtype = find_format(format or os.path.splitext(path)[1].lstrip("."))
    pieces = [audio] if isinstance(audio, np.ndarray) else audio
    with output_path(path, soundfile.LibsndfileError) as temporary:
        temporary.touch()  # raises an OSError with the reason; libsndfile would only say "System error"
        with soundfile.SoundFile(temporary, "w", rate, 1, format=kind, subtype=subtype) as file:
            for block in itertools.chain.from_iterable(map(in_blocks, pieces)):
                # in blocks, for the Vorbis writer overflows its stack on minutes at once
                file.write(to_pcm16(block) if subtype else np.clip(np.asarray(block, np.float32), -1, 1))


def find_format(name: str) -> tuple[str, str | None]:
    """libsndfile's names of a format that can be written, and of its 16-bit encoding where it has one.

    Raises UserError when there is none of that name.
    """
    kind = name.upper()
    subtype = "PCM_16" if kind in SIXTEEN_BIT else None
    if kind not in soundfile.available_formats() or not soundfile.check_format(kind, subtype):
        raise UserError(f"'{name}' is not a format that can be written; use wav, flac, ogg or mp3")
    return kind, subtype


def to_pcm16(audio: np.ndarray) -> np.ndarray:
    """Round ``(L,)`` samples to int16. 16-bit material read by read_audio comes back unchanged; nothing wraps round."""
    return np.clip(np.round(np.asarray(audio, np.float32) * 32768), -32768, 32767).astype(np.int16)


def in_blocks(audio: np.ndarray) -> Iterator[np.ndarray]:
    """Views of one array, ``BLOCK`` samples each, the last one shorter."""
    return (audio[start : start + BLOCK] for start in range(0, len(audio), BLOCK))


# -- sampling rates ---------------------------------------------------------------------------------------------------


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample ``(L,)`` to ``(ceil(L * to_rate / from_rate),)`` with soxr at high quality: for preparation."""
    if from_rate == to_rate:
        return audio
    import soxr

    length = -(-len(audio) * to_rate // from_rate)
    resampled = soxr.resample(audio, from_rate, to_rate, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32, copy=False)


def sinc_resample(audio: Tensor, from_rate: int, to_rate: int, lowpass_filter_width: int = 6) -> Tensor:
    """Resample ``(..., L)`` to ``(..., ceil(L * to_rate / from_rate))`` with a Hann-windowed sinc, on any device.

    This is ``torchaudio.transforms.Resample``, which published models are converted with; ``lowpass_filter_width``
    counts zero crossings on one side. torchaudio rounds the length to float32, so one beyond 2**24 may be a sample
    off. Rates with hardly a common divisor (44099 and 16000), whose kernel would not fit into memory, go through soxr.
    """
    divisor = math.gcd(from_rate, to_rate)
    source, target = from_rate // divisor, to_rate // divisor
    if source == target:
        return audio
    if source * target > LARGEST_KERNEL:
        return _resample_rows(audio, from_rate, to_rate)
    return _resampler(source, target, lowpass_filter_width, audio.device)(audio.float())


@functools.lru_cache(maxsize=16)
def _resampler(source: int, target: int, lowpass_filter_width: int, device: torch.device) -> torch.nn.Module:
    import torch

    with torch.inference_mode(False):  # the cached kernel serves training too
        resampler = import_torchaudio().transforms.Resample(source, target, lowpass_filter_width=lowpass_filter_width)
        return resampler.to(device)


def _resample_rows(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """``resample`` of each ``(L,)`` in ``(..., L)``."""
    import torch

    rows = audio.detach().reshape(-1, audio.shape[-1]).float().cpu().numpy()
    resampled = torch.stack([torch.from_numpy(resample(row, from_rate, to_rate)) for row in rows])
    return resampled.reshape(*audio.shape[:-1], -1).to(audio)
