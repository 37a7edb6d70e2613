"""The network of RMVPE: a U-Net over the log-mel, then a recurrent layer over its frames.

H. Wei, X. Cao, T. Dan, Y. Chen, "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music" (2023). Modules
are named as in the published weight files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.device import without_autocast

BINS = 360
MELS = 128
LEVELS = 5  # each halves time and frequency
CELL = 2**LEVELS  # frames per bottleneck frame
BLOCKS_A_LEVEL = 4
BOTTLENECK_LAYERS = 4


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Sequential(*_conv_norm(inputs, outputs), *_conv_norm(outputs, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).add_(self.shortcut(x))


def _conv_norm(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outputs, momentum=0.01), nn.ReLU(inplace=True)


def _residual_blocks(inputs: int, outputs: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(outputs if i else inputs, outputs) for i in range(BLOCKS_A_LEVEL))


class Level(nn.Module):
    """Residual blocks in a row, ``(B, inputs, N, F)`` -> ``(B, outputs, N, F)``."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = _residual_blocks(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.conv:
            x = block(x)
        return x


class Encoder(nn.Module):
    def __init__(self, widths: list[int]):
        super().__init__()
        self.bn = nn.BatchNorm2d(1, momentum=0.01)
        self.layers = nn.ModuleList(Level(*pair) for pair in zip([1, *widths], widths, strict=False))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the bottom ``(B, widths[-1], N / 32, F / 32)``, and each level's output before pooling."""
        x, skips = self.bn(x), []
        for level in self.layers:
            skips.append(level(x))
            x = F.avg_pool2d(skips[-1], 2)
        return x, skips


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList(Level(outputs if i else inputs, outputs) for i in range(BOTTLENECK_LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for level in self.layers:
            x = level(x)
        return x


class DecoderLevel(nn.Module):
    """Doubles time and frequency, and concatenates the encoder's output of that level."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        rise = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.conv1 = nn.Sequential(rise, nn.BatchNorm2d(outputs, momentum=0.01), nn.ReLU(inplace=True))
        self.conv2 = _residual_blocks(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat((self.conv1(x), skip), dim=1)
        for block in self.conv2:
            x = block(x)
        return x


class Decoder(nn.Module):
    def __init__(self, widths: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(DecoderLevel(2 * width, width) for width in reversed(widths))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for level in self.layers:
            x = level(x, skips.pop())
        return x


class UnusedFilters(nn.Module):
    """Weights that published files hold but the network does not use."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(ResidualBlock(width, width) for width in widths)


class UNet(nn.Module):
    """``(B, 1, N, F)`` -> ``(B, width, N, F)``; N and F are multiples of 32."""

    def __init__(self, width: int):
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.encoder = Encoder(widths)
        self.intermediate = Bottleneck(widths[-1], 2 * widths[-1])
        self.tf = UnusedFilters(widths)
        self.decoder = Decoder(widths)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.encoder(x)
        return self.decoder(self.intermediate(x), skips)


class Recurrent(nn.Module):
    """A GRU in both directions, ``(B, N, inputs)`` -> ``(B, N, 2 * outputs)``."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.gru = nn.GRU(inputs, outputs, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class RmvpeNetwork(nn.Module):
    """``width`` is 16 in all published files; tests use narrower networks."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.unet = UNet(width)
        self.cnn = nn.Conv2d(width, 3, 3, padding=1)
        self.fc = nn.Sequential(Recurrent(3 * MELS, 256), nn.Linear(512, BINS), nn.Dropout(0.25), nn.Sigmoid())

    def forward(self, mel: Tensor) -> Tensor:
        """Map the log-mel ``(B, 128, N)`` to the salience ``(B, N, 360)`` in [0, 1]."""
        frames = mel.shape[-1]
        features = self.features(F.pad(mel, (0, -frames % CELL)))  # trained with zeros, not log-mel silence
        with without_autocast(mel.device):
            return self.fc(features.float())[:, :frames]

    def features(self, mel: Tensor) -> Tensor:
        """Map the log-mel ``(B, 128, N)``, N a multiple of 32, to the recurrent layer's input ``(B, N, 384)``."""
        x = self.cnn(self.unet(mel.transpose(1, 2)[:, None]))
        return x.transpose(1, 2).flatten(2)

    def fold(self, memory_format: torch.memory_format = torch.contiguous_format) -> RmvpeNetwork:
        """Fold batch norms into the convolutions and drop unused weights, for inference; equal up to rounding.

        No tensor shares memory with what it was before. Weights of convolutions are stored in ``memory_format``.
        """
        del self.unet.tf
        parts = list(self.eval().modules())
        folded = [
            conv for part in parts if isinstance(part, nn.Sequential) for conv in _fold_norms(part, memory_format)
        ]
        for part in self.modules():
            if part not in folded:
                for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                    kept = memory_format if tensor.dim() == 4 else torch.contiguous_format
                    tensor.data = tensor.clone(memory_format=kept)
        return self


@torch.no_grad()
def _fold_norms(layers: nn.Sequential, memory_format: torch.memory_format) -> list[nn.Module]:
    """Replace the norms by identities; returns the convolutions before them, which have new parameters."""
    convs = []
    for index, norm in enumerate(layers):
        if isinstance(norm, nn.BatchNorm2d):
            conv, layers[index] = layers[index - 1], nn.Identity()
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = torch.empty_like(conv.weight, memory_format=memory_format)
            outputs = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
            torch.mul(conv.weight, scale.view(outputs), out=weight)
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(norm.bias - norm.running_mean * scale)
            convs.append(conv)
    return convs
