"""Linear and mel spectrograms: the synthesizer's, and the mel vocoder's with key shift and speed.

Everything is computed in float32, also inside autocast: the square of a half-precision sample loses the quiet bins.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.audio.torchaudio_guard import import_torchaudio
from modules.device import without_autocast

FLOOR = 1e-5  # the smallest amplitude whose logarithm is taken
LINEAR_EPSILON = 1e-6  # added to the power of each bin of a linear spectrogram
VOCODER_EPSILON = 1e-9  # the same for the spectrogram of a vocoder's mel

# -- the synthesizer's ------------------------------------------------------------------------------------------------


def linear_spectrogram(audio: Tensor, n_fft: int, hop_length: int, win_length: int) -> Tensor:
    """Compute magnitudes ``(B, n_fft // 2 + 1, T)`` of ``(B, L)`` in [-1, 1]; T is L // hop_length for even overlaps.

    Raises ValueError when the audio is too short for reflect padding: L must exceed (n_fft - hop_length) / 2.
    """
    padding = (n_fft - hop_length) // 2
    if audio.shape[-1] <= padding:
        raise ValueError(f"{audio.shape[-1]} samples are too few for a spectrogram; it takes more than {padding}")
    with without_autocast(audio.device):
        padded = F.pad(audio.float()[:, None], (padding, padding), mode="reflect")[:, 0]
        return _magnitude(padded, n_fft, hop_length, win_length, epsilon=LINEAR_EPSILON)


def scale_spectrogram(spec: Tensor, gain: float) -> Tensor:
    """Return the linear spectrogram of audio amplified by ``gain``, computed from ``spec`` (any shape)."""
    power = (spec.square() - LINEAR_EPSILON).clamp(min=0)
    return (power * gain**2 + LINEAR_EPSILON).sqrt()


def mel_from_linear(
    spec: Tensor, sampling_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None
) -> Tensor:
    """Compute the log-mel ``(B, n_mels, T)`` of magnitudes ``(B, n_fft // 2 + 1, T)``: natural log, floor 1e-5."""
    with without_autocast(spec.device):
        filters = mel_filters(sampling_rate, n_fft, n_mels, fmin, fmax, spec.device)
        return torch.matmul(filters, spec.float()).clamp(min=FLOOR).log()


def mel_spectrogram(
    audio: Tensor,
    sampling_rate: int,
    n_fft: int,
    n_mels: int,
    hop_length: int,
    win_length: int,
    fmin: float,
    fmax: float | None,
) -> Tensor:
    """Compute the log-mel ``(B, n_mels, T)`` of ``(B, L)``: linear_spectrogram, then mel_from_linear."""
    spec = linear_spectrogram(audio, n_fft, hop_length, win_length)
    return mel_from_linear(spec, sampling_rate, n_fft, n_mels, fmin, fmax)


# -- the mel vocoder's ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VocoderMel:
    """The log-mel of NSF-HiFiGAN vocoders and FCPE, whose weight or config files give these sizes."""

    sampling_rate: int = 44100
    n_mels: int = 128
    n_fft: int = 2048
    win_length: int = 2048
    hop_length: int = 512
    fmin: float = 40
    fmax: float | None = 16000

    def __call__(self, audio: Tensor, keyshift: float = 0, speed: float = 1) -> Tensor:
        """Map ``(B, L)`` to ``(B, n_mels, T)``, shifted up by ``keyshift`` semitones and ``speed`` times faster.

        A key shift scales the analysis window, and with it the distance between bins, and leaves time unchanged.
        """
        factor = 2 ** (keyshift / 12)
        n_fft, window = round(self.n_fft * factor), round(self.win_length * factor)
        hop = round(self.hop_length * speed)
        with without_autocast(audio.device):
            padded = _pad_for(audio.float(), window, hop)
            spec = _magnitude(padded, n_fft, hop, window, epsilon=VOCODER_EPSILON)
            if keyshift != 0:
                spec = F.pad(spec, (0, 0, 0, self.n_fft // 2 + 1 - spec.shape[1])) * (self.win_length / window)
        return mel_from_linear(spec, self.sampling_rate, self.n_fft, self.n_mels, self.fmin, self.fmax)


def _pad_for(audio: Tensor, window: int, hop: int) -> Tensor:
    """Pad ``(B, L)`` so that uncentred windows give L // hop frames: by reflection, or with zeros if L is too short."""
    length = audio.shape[-1]
    left = (window - hop) // 2
    right = max((window - hop + 1) // 2, window - length - left)
    mode = "reflect" if max(left, right) < length else "constant"
    return F.pad(audio[:, None], (left, right), mode=mode)[:, 0]


# -- shared by both ---------------------------------------------------------------------------------------------------


def _magnitude(padded: Tensor, n_fft: int, hop_length: int, win_length: int, epsilon: float) -> Tensor:
    """Return the root of power plus ``epsilon``, whose gradient is finite at silence: ``(B, n_fft // 2 + 1, T)``."""
    window = _hann(win_length, padded.device)
    spec = torch.stft(padded, n_fft, hop_length, win_length, window, center=False, return_complex=True)
    return (spec.real.square() + spec.imag.square() + epsilon).sqrt()


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # cached for training too, even if first computed for inference
def _hann(length: int, device: torch.device) -> Tensor:
    return torch.hann_window(length, device=device)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def mel_filters(
    sampling_rate: int,
    n_fft: int,
    n_mels: int,
    fmin: float,
    fmax: float | None,
    device: torch.device,
    mel_scale: str = "slaney",
) -> Tensor:
    """Return triangular filters ``(n_mels, n_fft // 2 + 1)`` float32 of equal area, evenly spaced on a mel scale.

    ``mel_scale`` is "slaney" or "htk".
    ``fmax`` None is half the sampling rate. librosa has the same filters but takes a second to import.
    """
    highest = sampling_rate / 2 if fmax is None else fmax
    make = import_torchaudio().functional.melscale_fbanks
    filters = make(n_fft // 2 + 1, fmin, highest, n_mels, sampling_rate, norm="slaney", mel_scale=mel_scale)
    return filters.T.contiguous().to(device)
