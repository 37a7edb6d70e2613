"""Shapes of a weight file's tensors, and weight norm in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modules.training.checkpoint import is_dense


def shape_of(weights: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    """Return the shape of a tensor. Raises KeyError if it is missing, ValueError for other ``dimensions``."""
    shape = weights[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} is {list(shape)}")
    return shape


def fold_weight_norm(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the weights with the product of the magnitude (1, 1, K) and direction (C, G, K) of a convolution."""
    folded = dict(weights)
    pair = [folded.pop(f"{name}.parametrizations.weight.original{index}", None) for index in (0, 1)]
    if all(tensor is not None and is_dense(tensor) for tensor in pair):
        magnitude, direction = (tensor.float() for tensor in pair)
        if magnitude.shape == (1, 1, *direction.shape[2:]):
            folded[f"{name}.weight"] = direction * (magnitude / direction.norm(dim=(0, 1), keepdim=True))
    return folded
