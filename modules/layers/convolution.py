"""PyTorch's convolutions on channels-last memory, which CPUs and, in training, GPUs process without reordering."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv1d(nn.Conv1d):
    """nn.Conv1d that computes in channels-last memory where that is faster; same parameters and values."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _use_channels_last(self, x) or (self.groups > 1 and not _helps_grouped_and_transposed(x)):
            return super()._conv_forward(x, weight, bias)
        if self.kernel_size == self.stride == (1,) and self.groups == 1:
            return F.linear(x.transpose(1, 2), weight.squeeze(2), bias).transpose(1, 2)
        stride, padding, dilation = (size[0] for size in (self.stride, self.padding, self.dilation))
        return F.conv2d(
            _channels_last(x), weight.unsqueeze(2), bias, (1, stride), (0, padding), (1, dilation), self.groups
        ).squeeze(2)


class Conv2d(nn.Conv2d):
    """As Conv1d, but channels-last only on a GPU."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type == "cuda" and _use_channels_last(self, x):
            x = x.contiguous(memory_format=torch.channels_last)
        return super()._conv_forward(x, weight, bias)


class ConvTranspose1d(nn.ConvTranspose1d):
    """As Conv1d. In float32 on a CPU the plain operation is faster for many channels."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, surplus = self.stride[0], self.padding[0], self.output_padding[0]
        if not _use_channels_last(self, x):
            return F.conv_transpose1d(x, weight, bias, stride, padding, surplus)
        if not _helps_grouped_and_transposed(x):
            return _channels_last(F.conv_transpose1d(x, weight, bias, stride, padding, surplus)).squeeze(2)
        return F.conv_transpose2d(
            _channels_last(x), weight.unsqueeze(2), bias, (1, stride), (0, padding), (0, surplus)
        ).squeeze(2)


def _use_channels_last(conv: nn.Module, x: Tensor) -> bool:
    if torch.onnx.is_in_onnx_export():
        return False
    return x.device.type == "cpu" or (x.device.type == "cuda" and conv.training)


def _helps_grouped_and_transposed(x: Tensor) -> bool:
    """Return whether grouped and transposed convolutions gain too; in float32 on a CPU they do not."""
    return x.device.type != "cpu" or torch.is_autocast_enabled("cpu")


def _channels_last(x: Tensor) -> Tensor:
    """Map (B, C, L) to (B, C, 1, L) in channels-last memory."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
