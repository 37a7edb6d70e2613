"""PyTorch's convolutions on channels-last memory, which CPUs and, in training, GPUs work on without reordering it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv1d(nn.Conv1d):
    """PyTorch's own class and parameters; where that is quicker, the result has its channels side by side in memory."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _by_channels(self, x) or (self.groups > 1 and not _by_channels_throughout(x)):
            return super()._conv_forward(x, weight, bias)
        if self.kernel_size == self.stride == (1,) and self.groups == 1:
            return F.linear(x.transpose(1, 2), weight.squeeze(2), bias).transpose(1, 2)
        stride, padding, dilation = (size[0] for size in (self.stride, self.padding, self.dilation))
        return F.conv2d(
            _channels_last(x), weight.unsqueeze(2), bias, (1, stride), (0, padding), (1, dilation), self.groups
        ).squeeze(2)


class Conv2d(nn.Conv2d):
    """As Conv1d, on a GPU alone."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type == "cuda" and _by_channels(self, x):
            x = x.contiguous(memory_format=torch.channels_last)
        return super()._conv_forward(x, weight, bias)


class ConvTranspose1d(nn.ConvTranspose1d):
    """As Conv1d. In float32 a CPU's own form is the quicker for many channels."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, surplus = self.stride[0], self.padding[0], self.output_padding[0]
        if not _by_channels(self, x):
            return F.conv_transpose1d(x, weight, bias, stride, padding, surplus)
        if not _by_channels_throughout(x):
            return _channels_last(F.conv_transpose1d(x, weight, bias, stride, padding, surplus)).squeeze(2)
        return F.conv_transpose2d(
            _channels_last(x), weight.unsqueeze(2), bias, (1, stride), (0, padding), (0, surplus)
        ).squeeze(2)


def _by_channels(conv: nn.Module, x: Tensor) -> bool:
    if torch.onnx.is_in_onnx_export():
        return False
    return x.device.type == "cpu" or (x.device.type == "cuda" and conv.training)


def _by_channels_throughout(x: Tensor) -> bool:
    """Whether all kinds of convolutions gain; in float32 a CPU's grouped and transposed ones do not."""
    return x.device.type != "cpu" or torch.is_autocast_enabled("cpu")


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, L) -> (B, C, 1, L) with the channels side by side."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
