"""The convolutions of HuBERT and WavLM, as a CPU computes them, equal torch's on the whole sound."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vencoder.position_convolution import PositionConvolution
from vencoder.wave_convolutions import BLOCK, WaveConvolutions

KERNELS = (10, 3, 3, 3, 3, 2, 2)
TOLERANCE = 1e-5


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1]))


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("samples", [400, 719, 720, 320 * BLOCK + 79, 320 * BLOCK + 80, 320 * BLOCK + 400])
@torch.inference_mode()
def test_convolutions_in_blocks_equal_those_of_the_whole_sound(samples, norm):
    torch.manual_seed(0)
    shapes = [(12, 12 if i else 1, kernel) for i, kernel in enumerate(KERNELS)]
    network = WaveConvolutions(shapes, [True] * len(KERNELS), norm, scaled=False)
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    for audio in (noise(2, samples), 1 + noise(1, samples), torch.zeros(1, samples)):
        wanted, network = audio[:, None].double(), network.double()
        for convolution in network.conv_layers:
            wanted = convolution(wanted)
        assert error(network.float()(audio), wanted.transpose(1, 2).float()) <= TOLERANCE


@pytest.mark.parametrize("kernel", [5, 16])
@torch.inference_mode()
def test_the_position_convolution_equals_torchs_at_every_length(kernel):
    torch.manual_seed(0)
    network = PositionConvolution(24, per_group=6, kernel=kernel)
    for frames in (1, 2, kernel, kernel + 1, kernel + 2, 3 * kernel + 5):
        x = noise(2, frames, 24)
        plain = network.conv(x.transpose(1, 2))[..., :frames].transpose(1, 2)
        assert error(network(x), F.gelu(plain)) <= TOLERANCE
