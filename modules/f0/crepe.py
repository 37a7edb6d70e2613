"""CREPE: a convolutional network on the waveform, robust against noise."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from modules.audio.torchaudio_guard import import_torchaudio
from modules.f0 import F0_MAX, F0_MIN, F0Predictor
from modules.f0.contour import resize_nearest
from modules.shared import shared

SAMPLING_RATE = 16000
WINDOW = 1024  # samples
PATH = 1024  # frames per Viterbi search; the published program restarts the search after as many
BATCH = 256  # frames per network pass, 300 MB of activations
SILENCE = -60.0  # dB, A-weighted; quieter frames are always unvoiced
FILTER = 3  # frames of the median filter of the confidence and the mean filter of F0; both skip missing values
BIN_WIDTH, FIRST_BIN = 20, 1997.3794084376191  # cents above 10 Hz
REACH = 12  # bins; steps between frames are smaller


class Crepe(F0Predictor):
    """J. W. Kim et al., "CREPE: a convolutional representation for pitch estimation" (2018): torchcrepe's "full".

    torchcrepe shifts each frame by a random part of a 20-cent bin, to hide the steps between bins. This dither is
    omitted here: the mean over three frames smooths the steps, no global random state changes, and the same clip
    always gives the same F0.
    """

    @torch.inference_mode()
    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        if len(audio) * SAMPLING_RATE < WINDOW * self.sampling_rate or not audio.any():
            return np.zeros(frames, np.float32)
        torchcrepe = _torchcrepe()
        wave = torch.from_numpy(audio)[None]
        hop = self.hop_length * SAMPLING_RATE // self.sampling_rate
        if self.sampling_rate != SAMPLING_RATE:
            wave = torchcrepe.resample(wave, self.sampling_rate)  # the filter that the network was trained with
        pitch, periodicity = self._predict(wave, hop)
        periodicity = torchcrepe.filter.median(periodicity, FILTER)
        periodicity = torchcrepe.threshold.Silence(SILENCE)(periodicity, wave, SAMPLING_RATE, hop)
        voiced = torchcrepe.threshold.At(self.threshold)(pitch, periodicity)
        f0 = torchcrepe.filter.mean(voiced, FILTER)[0].numpy()
        return resize_nearest(np.nan_to_num(f0, nan=0.0), frames)

    def _predict(self, wave: Tensor, hop: int) -> tuple[Tensor, Tensor]:
        """Return F0 (Hz) and confidence of ``(1, L)`` at 16 kHz, each ``(1, 1 + L // hop)`` float32."""
        torchcrepe = _torchcrepe()
        network = _network(torch.device(self.device))
        results = []
        for windows in torchcrepe.preprocess(wave, SAMPLING_RATE, hop, PATH, self.device):
            salience = torch.cat([network(batch) for batch in windows.split(BATCH)]).t()[None].cpu()  # (1, 360, frames)
            decoded = torchcrepe.postprocess(salience, F0_MIN, F0_MAX, _likeliest_path, return_periodicity=True)
            results.append(decoded)
        pitch, periodicity = (torch.cat(parts, dim=1) for parts in zip(*results, strict=True))
        return pitch, periodicity


def _torchcrepe():
    import_torchaudio()
    import torchcrepe

    return torchcrepe


@shared
def _network(device: torch.device) -> torch.nn.Module:
    """Load the network with torchcrepe's weights."""
    torchcrepe = _torchcrepe()
    with torch.random.fork_rng(devices=[]):  # torchcrepe samples weights before it reads them
        torchcrepe.load.model(device, "full")
    network = torchcrepe.infer.model
    del torchcrepe.infer.model  # torchcrepe's global, which other uses of it may replace or move
    if device.type == "cpu":
        for name in ("conv2", "conv3", "conv4", "conv5", "conv6"):
            setattr(network, name, FourierConv(getattr(network, name)))
    return network


class FourierConv(nn.Module):
    """A ``(64, 1)`` convolution by FFT: equal up to rounding, and the network is 4.5 times faster.

    ``(B, C, L, 1)`` -> ``(B, O, L - 63, 1)``, as the convolution that it replaces.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = conv.weight[..., 0], conv.bias
        self.spectra: dict[int, Tensor] = {}  # by transform length, (frequencies, C, O)

    def forward(self, x: Tensor) -> Tensor:
        samples, taps = x.shape[2], self.weight.shape[2]
        length = samples + samples % 2
        if length not in self.spectra:
            spectrum = torch.fft.rfft(self.weight, length).permute(2, 1, 0).conj()
            self.spectra[length] = spectrum.resolve_conj().contiguous()
        product = torch.fft.rfft(x[..., 0], length).permute(2, 0, 1) @ self.spectra[length]
        correlation = torch.fft.irfft(product.permute(1, 2, 0), length)[..., : samples - taps + 1]
        return (correlation + self.bias[:, None])[..., None]


def _likeliest_path(salience: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bin of each frame and its frequency in Hz, both ``(1, T)``, by Viterbi search in ``(1, 360, T)``."""
    import librosa

    probabilities = torch.softmax(salience[0], dim=0).numpy()
    bins = torch.from_numpy(librosa.sequence.viterbi(probabilities, _transitions()).astype(np.int64))[None]
    return bins, _torchcrepe().convert.cents_to_frequency(BIN_WIDTH * bins + FIRST_BIN)


@functools.lru_cache(maxsize=1)
def _transitions() -> np.ndarray:
    """Return the transition probabilities ``(360, 360)`` between bins: a triangle around the same bin."""
    bins = np.arange(360)
    weights = np.maximum(REACH - np.abs(bins[:, None] - bins), 0)
    return weights / weights.sum(axis=1, keepdims=True)
