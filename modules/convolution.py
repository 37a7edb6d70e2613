"""Convolutions in the form that is quickest where they run; the same mathematics as PyTorch's in every form.

Frames whose channels lie side by side in memory (channels last) are what processors and, in training, GPUs work on
without reordering them before and after. On a CPU one product of matrices is better still where the kernel is large and
the signal short.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modules.device import autocast_type

LEAST_WORK = 1 << 22  # multiplications a tap from which products of matrices are the quicker way to a weight's gradient


class Conv1d(nn.Conv1d):
    """PyTorch's own class and parameters; where that is quicker, the result has its channels side by side in memory."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _by_channels(self, x) or (self.groups > 1 and not _by_channels_throughout(x)):
            return super()._conv_forward(x, weight, bias)
        if self.kernel_size == self.stride == (1,) and self.groups == 1:
            return F.linear(x.transpose(1, 2), weight.squeeze(2), bias).transpose(1, 2)
        stride, padding, dilation = (size[0] for size in (self.stride, self.padding, self.dilation))
        x, weight = _channels_last(x), weight.unsqueeze(2)
        work = len(x) * x.shape[3] * self.in_channels * self.out_channels
        worthwhile = weight.requires_grad and work >= LEAST_WORK
        if stride == self.groups == 1 and worthwhile and not _by_channels_throughout(x):
            return _Conv.apply(x, weight, bias, padding, dilation).squeeze(2)
        return F.conv2d(x, weight, bias, (1, stride), (0, padding), (1, dilation), self.groups).squeeze(2)


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
    return x.device.type != "cpu" or autocast_type("cpu") is not None


def _channels_last(x: Tensor) -> Tensor:
    """(B, C, L) -> (B, C, 1, L) with the channels side by side."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class _Conv(torch.autograd.Function):
    """A convolution along the last dimension, of stride 1, whose weight learns by one product of matrices a tap: on a
    CPU, in float32, twice as quick as PyTorch's own gradient. Padding may not exceed the kernel's reach."""

    @staticmethod
    def forward(ctx, x, weight, bias, padding, dilation) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = padding, dilation
        return F.conv2d(x, weight, bias, 1, (0, padding), (1, dilation))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        padding, dilation = ctx.geometry
        reach, frames = (weight.shape[3] - 1) * dilation, grad.shape[3]
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(3).transpose(0, 1)
            grad_x = F.conv2d(grad, mirrored, None, 1, (0, reach - padding), (1, dilation))
        if ctx.needs_input_grad[1]:
            heard = F.pad(x, (padding, padding)).squeeze(2).transpose(1, 2)
            taps = range(0, reach + 1, dilation)
            of_taps = [torch.bmm(grad.squeeze(2), heard[:, tap : tap + frames]).sum(dim=0) for tap in taps]
            grad_weight = torch.stack(of_taps, dim=2).unsqueeze(2)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(dim=(0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


class Columns(NamedTuple):
    """A weight (out, C, kernel) as a matrix (out, kernel·C) in the type to compute in, and its rows' norms (out,)."""

    matrix: Tensor
    norm: Tensor


@torch.no_grad()
def columns_of(weight: Tensor) -> Columns:
    """``weight`` (out, C, kernel), more dimensions of 1 allowed, for column_conv."""
    norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    weight = weight.to(autocast_type("cpu") or weight.dtype)
    return Columns(weight.flatten(2).transpose(1, 2).flatten(1), norm)


def column_conv(
    x: Tensor, weight_v: Tensor, weight_g: Tensor, bias: Tensor, columns: Columns, stride: int, padding: int
) -> Tensor:
    """A weight-normed convolution along the second dimension of ``x``, as one product of matrices.

    The norm is made good in the output, which is the smaller by far: no pass over the weight is needed for it.

    Args:
        x: (B, L, C), channels last.
        weight_v, weight_g, bias: the parameters, of any shape.
        columns: those of ``weight_v``.

    Returns:
        (B, (L + 2·padding - kernel) // stride + 1, out) in the type of ``columns``.
    """
    return _ColumnConv.apply(x.to(columns.matrix.dtype), weight_v, weight_g, bias, *columns, stride, padding)


class _ColumnConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight_v, weight_g, bias, matrix, norm, stride, padding) -> Tensor:
        kernel, scale = matrix.shape[1] // x.shape[2], weight_g.flatten() / norm
        columns = F.pad(x, (0, 0, padding, padding)).unfold(1, kernel, stride).transpose(2, 3)
        places = columns.shape[:2]
        columns = columns.reshape(-1, matrix.shape[1])
        unscaled = columns @ matrix.t()
        learns = ctx.needs_input_grad[1]
        ctx.geometry = x.shape, kernel, stride, padding
        ctx.save_for_backward(matrix, scale, *((columns, unscaled, weight_v, weight_g, norm) if learns else ()))
        return torch.addcmul(bias, unscaled, scale).to(x.dtype).view(*places, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        matrix, scale, *for_weight = ctx.saved_tensors
        (batch, length, channels), kernel, stride, padding = ctx.geometry
        rows, grad = grad.shape[1], grad.reshape(-1, grad.shape[2])
        scaled = (grad * scale).to(matrix.dtype)
        grad_x = grad_v = grad_g = grad_bias = None
        if ctx.needs_input_grad[0]:
            taps = (scaled @ matrix).view(batch, rows, kernel, channels)
            padded = taps.new_zeros(batch, length + 2 * padding + stride, channels)
            for tap in range(kernel):
                padded[:, tap : tap + rows * stride : stride] += taps[:, :, tap]
            grad_x = padded[:, padding : padding + length]
        if for_weight:
            columns, unscaled, weight_v, weight_g, norm = for_weight
            grad_scale = (grad * unscaled).sum(dim=0, dtype=norm.dtype)
            grad_bias = grad.sum(dim=0, dtype=norm.dtype)
            grad_g = (grad_scale / norm).view_as(weight_g)
            direct = (scaled.t() @ columns).view(-1, kernel, channels).transpose(1, 2)
            grad_v = torch.empty_like(weight_v)
            grad_v.view_as(direct).copy_(direct)
            # Along the weight's direction nothing is learnt but its norm, which has the gradient of the scale.
            grad_v.addcmul_(weight_v, (-grad_scale * scale / norm.square()).view_as(weight_g))
        return grad_x, grad_v, grad_g, grad_bias, None, None, None, None
