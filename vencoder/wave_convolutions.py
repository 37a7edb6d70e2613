"""The convolutions over the waveform in front of HuBERT and WavLM: one frame every 320 samples.

A. Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", 2020, section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers.convolution import Conv1d
from vencoder.encoder import HOP_LENGTH, WINDOW_LENGTH

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of the seven convolutions, in samples: 320 in total
BLOCK = 100  # frames that a CPU computes at once: the first outputs, 64 times as long, then stay in its caches


class Convolution(nn.Module):
    """A convolution, a norm and GELU: (B, C, L) -> (B, C', L').

    Args:
        outputs, inputs, kernel, stride, bias: of the convolution.
        norm: ``group`` for a norm of each channel over time, ``layer`` for one of each frame over the channels.
    """

    def __init__(self, outputs: int, inputs: int, kernel: int, stride: int, bias: bool, norm: str | None):
        super().__init__()
        self.conv = Conv1d(inputs, outputs, kernel, stride, bias=bias)
        norms = {
            None: nn.Identity,
            "group": lambda: nn.GroupNorm(outputs, outputs),
            "layer": lambda: nn.LayerNorm(outputs),
        }
        self.layer_norm = norms[norm]()

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self._normalised(self.conv(x)))

    def first(self, windows: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        """Compute ``forward`` from the windows (B, L', kernel) of the audio, with ``weights_for`` it."""
        x = torch.baddbmm(shift, windows, weight).transpose(1, 2)
        return F.gelu(x if isinstance(self.layer_norm, nn.GroupNorm) else self._normalised(x))

    def windows(self, audio: Tensor) -> Tensor:
        """Return the windows of audio (B, L) that the kernel sees: (B, L', kernel)."""
        return audio.unfold(1, self.conv.kernel_size[0], self.conv.stride[0])

    def weights_for(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight (B, kernel, C') and the shift (B, 1, C') of the convolution of audio (B, L).

        The group norm is part of them: a channel's mean and variance follow from the mean and the covariance of the
        windows, so its output is not computed for them.
        """
        weight = self.conv.weight[:, 0]
        if not isinstance(self.layer_norm, nn.GroupNorm):
            shift = weight.new_zeros(len(weight)) if self.conv.bias is None else self.conv.bias
            return weight.t().expand(len(audio), -1, -1), shift.expand(len(audio), 1, -1)
        weight, windows = weight.double(), self.windows(audio).double()
        mean = windows.mean(dim=1, keepdim=True)
        centred = windows - mean
        covariance = centred.transpose(1, 2) @ centred / centred.shape[1]
        variance = (weight @ covariance * weight).sum(dim=2)
        scale = self.layer_norm.weight * (variance + self.layer_norm.eps).rsqrt()
        shift = self.layer_norm.bias - scale * (mean @ weight.t())[:, 0]
        return (weight * scale[..., None]).transpose(1, 2).float(), shift[:, None].float()

    def _normalised(self, x: Tensor) -> Tensor:
        if isinstance(self.layer_norm, nn.LayerNorm):
            return self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return self.layer_norm(x)


class WaveConvolutions(nn.Module):
    """The seven convolutions: (B, L) -> (B, N, D). Parameters are named as in the transformers library.

    Args:
        shapes: (outputs, inputs, kernel) of each.
        biases: whether each has a bias.
        norm: ``group`` for a group norm in the first, ``layer`` for a layer norm in each.
        scaled: whether the outputs are multiplied by ``channel_scale``, as in pruned networks.
    """

    def __init__(self, shapes: list[tuple[int, int, int]], biases: list[bool], norm: str, scaled: bool):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            Convolution(*shape, stride, bias, None if i and norm == "group" else norm)
            for i, (shape, stride, bias) in enumerate(zip(shapes, STRIDES, biases, strict=True))
        )
        self.channel_scale = nn.Parameter(torch.empty(shapes[-1][0])) if scaled else None

    def forward(self, audio: Tensor) -> Tensor:
        if audio.device.type == "cpu" and not torch.onnx.is_in_onnx_export():
            frames = self._in_blocks(audio)
        else:
            frames = self._after(0, audio[:, None])
        return frames if self.channel_scale is None else frames * self.channel_scale

    def _in_blocks(self, audio: Tensor) -> Tensor:
        """Compute BLOCK frames at a time, in channels-last memory."""
        first, *_ = self.conv_layers
        weight, shift = first.weights_for(audio)
        count = (audio.shape[1] - WINDOW_LENGTH) // HOP_LENGTH + 1
        blocks = []
        for start in range(0, count, BLOCK):
            end = (min(start + BLOCK, count) - 1) * HOP_LENGTH + WINDOW_LENGTH
            windows = first.windows(audio[:, start * HOP_LENGTH : end])
            blocks.append(self._after(1, first.first(windows, weight, shift)))
        return torch.cat(blocks, dim=1)

    def _after(self, start: int, x: Tensor) -> Tensor:
        """Apply the convolutions from the one with index ``start`` on: (B, C, L) to (B, N, D)."""
        for convolution in self.conv_layers[start:]:
            x = convolution(x)
        return x.transpose(1, 2)
