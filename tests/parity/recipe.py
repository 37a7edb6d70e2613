"""Weights for the comparisons: every parameter's numbers follow from its name, its shape and a seed.

The original program's networks were filled by the same rules, so no weight file is needed to compare with them.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import torch

# Buffers that the constructor computes: window and filter tables, the diffusion's schedule.
COMPUTED = {
    *("filter", "cent_table", "mel_basis", "positional_embedding", "spec_min", "spec_max", "betas"),
    *("alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
    *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
}
SCALES = ("weight_g", "running_var")  # positive, near 1
OFFSETS = ("bias", "alpha", "beta", "running_mean", "in_proj_bias")  # near 0
BLOCK = 1 << 14  # numbers that are drawn at once


def recipe_values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The float32 values of one parameter, drawn and scaled in blocks that fit into the processor's cache."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), BLOCK):
        draws = rng.standard_normal(min(BLOCK, len(values) - start))
        values[start : start + BLOCK] = _scaled(name, shape, draws)
    return values.reshape(shape)


def _scaled(name: str, shape: tuple[int, ...], draws: np.ndarray) -> np.ndarray:
    *_, leaf = path = name.split(".")
    if leaf in SCALES:
        gain = 0.5 if "resblocks" in name else 1.0  # at full gain a deep generator saturates
        return gain * (1 + 0.1 * np.abs(draws))
    if leaf in OFFSETS or leaf.startswith("bias_"):
        return 0.1 * draws
    if len(shape) < 2:
        return 1 + 0.1 * draws
    if any(part == "spk_embed" or part.startswith("emb_") or part.endswith("_emb") for part in path[-2:]):
        return draws  # embedding tables: rows far apart
    return draws / np.sqrt(np.prod(shape[1:]))


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Networks built inside have no initial weights: ``fill`` sets them all."""
    kept = {name: lambda tensor, *_, **__: tensor for name in ("uniform_", "normal_")}
    with mock.patch.multiple(torch.Tensor, **kept):
        yield


Values = Callable[[str, tuple[int, ...], int], np.ndarray]


def fill(module: torch.nn.Module, seed: int, values: Values = recipe_values) -> None:
    """Give every floating-point entry of the state dict its values, in place; computed buffers stay.

    An entry with two names ends with the later name's values. ``values`` may be a ``recipe_values`` that remembers.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and name.rpartition(".")[2] not in COMPUTED:
            tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape), seed)))
