"""Mel-frequency cepstra: an encoder without a network, for demonstrations and tests.

It needs no weight file, so everything runs on a fresh machine. Its features hold much about the speaker, which a
conversion should not carry over: songs converted with it keep some of the original voice.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from modules.audio.spectrogram import mel_filters
from vencoder.encoder import HOP_LENGTH, SAMPLING_RATE, WINDOW_LENGTH, SpeechEncoder

N_FFT = 512
MEL_BANDS = 40
CEPSTRA = 24  # without c0, the loudness
POWER_FLOOR = 1e-6  # about 100 dB below a full-scale sine: digital silence has no logarithm
LEAST_DEVIATION = 1e-3  # features that vary less are constant up to rounding, and stay near zero


class Mfcc(SpeechEncoder):
    """40 log-mel bands -> 24 cepstra, their first and second differences; each of the 72 with zero mean and unit
    variance over the sound. Windows of 25 ms every 20 ms, aligned with HuBERT's frames.

    ``layer``, ``path`` and ``half`` are ignored, for interchangeability with other encoders.
    """

    bounds_memory = True

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: None = None,
        path: Path | None = None,
        device: str | torch.device = "cpu",
        half: bool = False,
    ):
        super().__init__(key, ssl_dim, device, half=False)
        self.window = torch.hann_window(WINDOW_LENGTH, device=self.device)
        self.mel_basis = mel_filters(SAMPLING_RATE, N_FFT, MEL_BANDS, 0, None, self.device)
        self.cosines = _cosines().to(self.device)

    def features(self, audio: Tensor) -> Tensor:
        windows = audio.unfold(0, WINDOW_LENGTH, HOP_LENGTH) * self.window
        power = torch.fft.rfft(windows, N_FFT).abs().square()
        log_mel = (self.mel_basis @ power.T).clamp_min(POWER_FLOOR).log()
        cepstra = self.cosines @ log_mel
        features = torch.cat([cepstra, *_differences(cepstra)])
        deviation, mean = torch.std_mean(features, dim=1, correction=0, keepdim=True)
        return (features - mean) / deviation.clamp_min(LEAST_DEVIATION)


def _cosines() -> Tensor:
    """Return rows 1 to 24 of the orthonormal discrete cosine transform (type II) of 40 bands: (24, 40)."""
    order = torch.arange(1, CEPSTRA + 1)[:, None]
    band = torch.arange(MEL_BANDS)[None, :] + 0.5
    return torch.cos(math.pi / MEL_BANDS * order * band) * math.sqrt(2 / MEL_BANDS)


def _differences(values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute central first and second differences over the last axis, with replicate padding."""
    padded = torch.nn.functional.pad(values[None], (1, 1), mode="replicate")[0]
    before, after = padded[:, :-2], padded[:, 2:]
    return (after - before) / 2, after - 2 * values + before
