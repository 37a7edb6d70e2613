"""Whisper's encoder as a graph: spectrogram, windows, and the blending of overlapping windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onnxexport.spectrum import PowerSpectrum
from vencoder.encoder import HOP_LENGTH, WINDOW_LENGTH
from vencoder.whisper import MEL_HOP, N_FFT, Whisper, scaled_decades, window_weight


class WhisperGraph(nn.Module):
    """Encodes sound (1, 1, L) at 16 kHz into (1, N, C), as the encoder does; N is ``encoder.frames(L)``.

    The windows of longer sound are one batch.
    """

    def __init__(self, encoder: Whisper):
        super().__init__()
        self.network, self.padding, self.width = encoder.network, encoder.padding, encoder.ssl_dim
        self.power = PowerSpectrum(N_FFT, MEL_HOP)
        self.register_buffer("mel_basis", encoder.mel_basis)
        self.window, self.overlap = encoder.window, encoder.overlap
        self.register_buffer("weight", window_weight(self.window, self.overlap))

    def forward(self, source: Tensor) -> Tensor:
        audio = source[0, 0]
        frames = (audio.shape[0] + 2 * self.padding - WINDOW_LENGTH) // HOP_LENGTH + 1
        beyond = torch.as_tensor(frames - self.window).clamp(min=0)
        starts = self._starts(beyond)
        length = self.window * HOP_LENGTH
        samples = (starts * HOP_LENGTH)[:, None] + torch.arange(length, device=audio.device)
        windows = F.pad(audio, (0, length))[samples]
        padded = F.pad(windows[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[:, 0]
        mel = scaled_decades(self.power(padded)[..., :-1], self.mel_basis)
        features = self._blend(self.network(mel), starts, beyond)[:frames]
        return features.reshape(1, -1, self.width)

    def _starts(self, beyond: Tensor) -> Tensor:
        """Compute ``vencoder.whisper.window_starts`` (W,) for sound that is ``beyond`` frames longer than a window."""
        gaps = (beyond + self.window - self.overlap - 1) // (self.window - self.overlap)
        return (torch.arange(gaps + 1, device=beyond.device) * beyond.double() / gaps.clamp(min=1)).round().long()

    def _blend(self, windows: Tensor, starts: Tensor, beyond: Tensor) -> Tensor:
        """Compute ``vencoder.whisper.blend``: (W, window, C) to (N, C). Sound shorter than a window is zero-padded."""
        weighted = torch.cat((windows * self.weight, self.weight.expand(windows.shape[0], -1, 1)), dim=2).flatten(0, 1)
        frames = (starts[:, None] + torch.arange(self.window, device=starts.device)).flatten()
        total = weighted.new_zeros(beyond + self.window, weighted.shape[1])
        total = total.scatter_add(0, frames[:, None].expand_as(weighted), weighted)
        return total[:, :-1] / total[:, -1:]
