"""Spectra inside an ONNX graph, which has neither complex numbers nor torch.stft."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PowerSpectrum(nn.Module):
    """Squared magnitude of ``torch.stft(padded, n_fft, hop_length, win_length, torch.hann_window(win_length), False)``.

    Computed as a product with cosines and sines in double precision. A float32 FFT is less exact, and logarithms are
    taken of bins a million times weaker than the loudest.
    """

    def __init__(self, n_fft: int, hop_length: int, win_length: int | None = None):
        super().__init__()
        self.hop_length = hop_length
        turns = torch.arange(n_fft)[:, None] * torch.arange(n_fft // 2 + 1) % n_fft
        angles = 2 * torch.pi * turns.double() / n_fft
        window = torch.hann_window(win_length or n_fft).double()
        left = (n_fft - len(window)) // 2
        window = F.pad(window, (left, n_fft - len(window) - left))
        self.register_buffer("basis", torch.cat((angles.cos(), angles.sin()), dim=1) * window[:, None])

    def forward(self, padded: Tensor) -> Tensor:
        """Map ``(B, L)`` to ``(B, n_fft // 2 + 1, (L - n_fft) // hop_length + 1)`` float32."""
        n_fft, bins = self.basis.shape[0], self.basis.shape[1] // 2
        count = (padded.shape[1] - n_fft) // self.hop_length + 1
        starts = torch.arange(count, device=padded.device) * self.hop_length
        frames = padded.double()[:, starts[:, None] + torch.arange(n_fft, device=padded.device)]
        parts = (frames @ self.basis).square()
        return (parts[..., :bins] + parts[..., bins:]).float().transpose(1, 2)
