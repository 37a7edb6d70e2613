"""Read, write and resample audio.

Unless noted otherwise, audio is float32 in [-1, 1], mono, ``(L,)`` samples.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile

from modules.atomic_file import output_path, reason
from modules.audio import ffmpeg
from modules.audio.torchaudio_guard import import_torchaudio
from modules.console import UserError

if TYPE_CHECKING:  # imported where it is used, so that stages that only handle files start without torch
    import torch
    from torch import Tensor

BLOCK = 1 << 20  # samples that are processed at once where a whole recording need not be in memory
SIXTEEN_BIT = ("WAV", "FLAC", "AIFF", "CAF", "W64", "RF64")
RATES = (1000, 1_000_000)  # Hz; lowest and highest rate that a header may give
MOST_CHANNELS = 64  # of an array
LARGEST_KERNEL = 1 << 23  # values; building it takes 64 MiB; common rates need a fiftieth

# -- files ------------------------------------------------------------------------------------------------------------


def read_audio(path: str | os.PathLike, sampling_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read any file that libsndfile or ffmpeg supports (wav, flac, ogg, mp3, ...) as mono, the mean of its channels.

    Returns ``(L,)`` float32 and its rate: the file's, or ``sampling_rate`` after resampling if that is given.
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


def open_audio(path: str | os.PathLike | BinaryIO | bytes) -> _SequentialSoundFile:
    """Open an audio file, its content, or a seekable file object from its start, for reading in blocks.

    Files in formats that libsndfile does not read are decoded by ffmpeg, chosen by suffix or by the file's first bytes
    (modules/audio/ffmpeg.py). Raises UserError when it is missing or not audio.
    """
    if isinstance(path, bytes):
        path = io.BytesIO(path)
    is_object = hasattr(path, "read")
    if not is_object and not os.path.isfile(path):
        raise UserError(f"there is no file {path}")
    try:
        if is_object:
            path.seek(0)
            file = _SequentialSoundFile(path)
            path = display_name(path)
        else:
            source = ffmpeg.decode_to_wav(path) if ffmpeg.is_needed(path) else path
            name = os.fspath(source) if os.name == "nt" else os.fsencode(source)  # the name need not be Unicode
            file = _SequentialSoundFile(name)
        file.display_path = os.fspath(path)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as audio: {reason(error)}; export it again, as wav or flac") from None
    if not RATES[0] <= file.samplerate <= RATES[1]:
        file.close()
        raise UserError(f"{path} cannot be read: its header gives a rate of {file.samplerate} Hz; export it again")
    return file


def display_name(source: str | os.PathLike | BinaryIO | bytes) -> Path:
    """Return the path of a file for messages; content and file objects without a name are "the sound"."""
    return Path(source) if isinstance(source, str | os.PathLike) else Path(str(getattr(source, "name", "the sound")))


def as_wav(audio: np.ndarray, sampling_rate: int) -> bytes:
    """Return audio, ``(L,)`` or ``(L, channels)``, as the bytes of a WAV file in float32.

    Integers are scaled to [-1, 1]. Raises UserError for another shape or an impossible rate.
    """
    audio = np.asarray(audio)
    channels = audio.shape[1] if audio.ndim == 2 else 1
    if audio.ndim not in (1, 2) or not 1 <= channels <= MOST_CHANNELS:
        raise UserError(f"an array of shape {audio.shape} is no sound; it must be (samples,) or (samples, channels)")
    if not RATES[0] <= sampling_rate <= RATES[1]:
        raise UserError(f"the sound's rate is {sampling_rate} Hz; it must be from {RATES[0]} to {RATES[1]}")
    if audio.dtype.kind == "i":
        audio = audio / -float(np.iinfo(audio.dtype).min)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sampling_rate, channels, "FLOAT", format="WAV") as writer:
        writer.write(audio.astype(np.float32))
    return file.getvalue()


class _SequentialSoundFile(soundfile.SoundFile):
    """A SoundFile that never seeks: seeking after a read fails at the end of FLAC whose header gives no length.

    ``display_path`` is the path for messages.
    """

    display_path: str

    def seekable(self) -> bool:
        return False


def read_blocks(file: _SequentialSoundFile) -> Iterator[np.ndarray]:
    """Yield the rest of a file opened by open_audio as ``(n, channels)`` float32, n * channels being BLOCK at most.

    The length in the header is ignored. Raises UserError when the file is damaged or holds NaN or infinity.
    """
    while len(block := read_block(file, max(1, BLOCK // file.channels))):
        yield block


def read_block(file: _SequentialSoundFile, samples: int) -> np.ndarray:
    """Read the next ``samples``, or fewer at the end; shape and errors as in ``read_blocks``."""
    path = file.display_path
    try:
        block = file.read(samples, dtype="float32", always_2d=True)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {reason(error)}; copy or export it again") from None
    if not np.isfinite(block).all():
        raise UserError(f"{path} holds NaN or infinite samples; export it again or leave it out")
    return block


def no_sound(path: str | os.PathLike) -> UserError:
    """Return the error for a file without samples."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0  # a file object has no path
    if size < 1000:
        return UserError(f"{path} holds no sound: its length is 0 samples")
    return UserError(
        f"{path} holds {size} bytes, but its header gives a length of 0 samples, as programs write it to a pipe; let "
        "the program write to a file, or export it again"
    )


def write_audio(
    path: str | os.PathLike, audio: np.ndarray | Iterable[np.ndarray], rate: int, format: str | None = None
) -> None:
    """Write ``(L,)`` samples atomically, clipped to [-1, 1].

    ``audio`` may be an iterable of consecutive pieces. ``format`` is a libsndfile name ("wav", "flac", "ogg", "mp3",
    ...); None takes it from the suffix. Formats with a 16-bit encoding are written with 16 bits.
    Raises UserError when the format is unknown or the file cannot be written.
    """
    kind, subtype = find_format(format or os.path.splitext(path)[1].lstrip("."))
    pieces = [audio] if isinstance(audio, np.ndarray) else audio
    with output_path(path, soundfile.LibsndfileError) as temporary:
        temporary.touch()  # raises an OSError with the reason; libsndfile reports only "System error"
        with soundfile.SoundFile(temporary, "w", rate, 1, format=kind, subtype=subtype) as file:
            for block in itertools.chain.from_iterable(map(in_blocks, pieces)):
                # in blocks, because the Vorbis writer overflows its stack on minutes of audio
                file.write(to_pcm16(block) if subtype else np.clip(np.asarray(block, np.float32), -1, 1))


def find_format(name: str) -> tuple[str, str | None]:
    """Return libsndfile's names of a writable format and of its 16-bit encoding, if it has one.

    Raises UserError for an unknown format.
    """
    kind = name.upper()
    subtype = "PCM_16" if kind in SIXTEEN_BIT else None
    if kind not in soundfile.available_formats() or not soundfile.check_format(kind, subtype):
        raise UserError(f"'{name}' is not a format that can be written; use wav, flac, ogg or mp3")
    return kind, subtype


def to_pcm16(audio: np.ndarray) -> np.ndarray:
    """Round and clip ``(L,)`` samples to int16. 16-bit audio read by read_audio comes back unchanged."""
    return np.clip(np.round(np.asarray(audio, np.float32) * 32768), -32768, 32767).astype(np.int16)


def in_blocks(audio: np.ndarray) -> Iterator[np.ndarray]:
    """Yield views of ``(L,)``, ``BLOCK`` samples each, the last one shorter."""
    return (audio[start : start + BLOCK] for start in range(0, len(audio), BLOCK))


# -- sampling rates ---------------------------------------------------------------------------------------------------


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample ``(L,)`` to ``(ceil(L * to_rate / from_rate),)`` with soxr at high quality, for preparation."""
    if from_rate == to_rate:
        return audio
    import soxr

    length = -(-len(audio) * to_rate // from_rate)
    resampled = soxr.resample(audio, from_rate, to_rate, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled))).astype(np.float32, copy=False)


def sinc_resample(audio: Tensor, from_rate: int, to_rate: int, lowpass_filter_width: int = 6) -> Tensor:
    """Resample ``(..., L)`` to ``(..., ceil(L * to_rate / from_rate))`` with a Hann-windowed sinc, on any device.

    This is ``torchaudio.transforms.Resample``, as in the published program; ``lowpass_filter_width`` counts zero
    crossings on one side. torchaudio computes the length in float32, so above 2**24 it may be off by one sample. Rates
    with a small common divisor (44099 and 16000), whose kernel would not fit into memory, are resampled by soxr.
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
    """Apply ``resample`` to each ``(L,)`` in ``(..., L)``."""
    import torch

    rows = audio.detach().reshape(-1, audio.shape[-1]).float().cpu().numpy()
    resampled = torch.stack([torch.from_numpy(resample(row, from_rate, to_rate)) for row in rows])
    return resampled.reshape(*audio.shape[:-1], -1).to(audio)
