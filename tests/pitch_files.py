"""Weight files of the pitch networks, with random weights under the published names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from modules.f0 import rmvpe
from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
from modules.f0.rmvpe_network import RmvpeNetwork

FCPE_MEL = {"sampling_rate": 16000, "num_mels": 128, "n_fft": 1024, "win_size": 1024, "hop_size": 160, "fmax": 8000}


def random_network(network: nn.Module, seed: int = 0) -> nn.Module:
    """Norms and biases are random too, so that a misplaced tensor changes the result."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and name != "cent_table":
            noise = torch.randn(tensor.shape, generator=generator)
            centre = 0.0 if "bias" in name or "mean" in name else 1.0
            tensor.copy_(noise / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else centre + 0.2 * noise)
    return network.eval()


def narrow_rmvpe(seed: int = 0) -> RmvpeNetwork:
    return random_network(RmvpeNetwork(width=2), seed)


def small_fcpe(seed: int = 0, attention: bool = True) -> FcpeNetwork:
    return random_network(FcpeNetwork(FcpeSizes(channels=32, layers=3, attention=attention)), seed)


def write_fcpe(path: Path, seed: int = 0) -> Path:
    torch.save({"config": {"mel": FCPE_MEL}, "model": small_fcpe(seed).state_dict()}, path)
    return path


def write_narrow_rmvpe(path: Path, monkeypatch, seed: int = 0) -> Path:
    """Write a file as published except for its width, and make the program expect that width."""
    torch.save({"model": narrow_rmvpe(seed).state_dict()}, path)
    monkeypatch.setattr(rmvpe, "RmvpeNetwork", lambda: RmvpeNetwork(width=2))
    return path
