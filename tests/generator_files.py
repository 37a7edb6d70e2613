"""Checkpoints of tiny generators as training writes them, for tests of the tools that convert them."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import torch

from modules.config import Config, save_config
from tests.tiny import tiny_config
from vits.synthesizer import Synthesizer

SPECTRUM = 1025  # bins by the default config


def config_of(**model) -> Config:
    """Return the tiny configuration with these keys in its ``model`` section."""
    config = tiny_config()
    for key, value in model.items():
        setattr(config.model, key, value)
    return config


def write_generator_file(path: Path, config: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write a checkpoint with random weights and an optimizer state, and the config.json beside it."""
    content = _checkpoint(json.dumps(config.to_dict()), seed)
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    save_config(config, path.with_name("config.json"))
    return torch.load(io.BytesIO(content), weights_only=True)["model"]


@functools.lru_cache(maxsize=8)
def _checkpoint(config: str, seed: int) -> bytes:
    """The checkpoint's file, made once for neighbouring tests."""
    torch.manual_seed(seed)
    network = Synthesizer(Config.from_dict(json.loads(config)).model, SPECTRUM)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    entries = {"iteration": 7, "optimizer": optimizer.state_dict(), "learning_rate": 3e-4}
    file = io.BytesIO()
    torch.save({"model": network.state_dict(), **entries}, file)
    return file.getvalue()


def stirred(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights whose output depends strongly on every input, unlike the initial weights of training."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        if name.startswith("dec.") and name.endswith("weight_g"):
            tensor *= 2
        elif name.endswith(".post.weight"):
            tensor.normal_(0, 0.5, generator=generator)
    return weights


def sing(weights: dict[str, torch.Tensor], config: Config) -> torch.Tensor:
    """Generate one second of audio (L,) with these weights, which may lack those that only training needs."""
    network = Synthesizer(config.model, SPECTRUM).eval()
    lacking = network.load_state_dict(weights, strict=False)
    assert not lacking.unexpected_keys and all(name.startswith("enc_q.") for name in lacking.missing_keys)
    c = torch.randn(1, config.model.ssl_dim, 30, generator=torch.Generator().manual_seed(1))
    f0 = torch.full((1, 30), 200.0)
    return network.infer(c, f0, torch.ones(1, 30), torch.tensor([[1]]))[0][0, 0]
