"""The mel vocoder's files, as small as their format allows, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vdecoder.nsf_hifigan import NsfHifigan
from vdecoder.vocoder_config import VocoderConfig

PUBLISHED_MEL = {
    "sampling_rate": 44100,
    "num_mels": 128,
    "n_fft": 2048,
    "win_size": 2048,
    "hop_size": 512,
    "fmin": 40,
    "fmax": 16000,
}
SMALL_NETWORK = {
    "upsample_rates": [8, 8, 8],
    "upsample_kernel_sizes": [16, 16, 16],
    "upsample_initial_channel": 16,
    "resblock": "1",
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
}
NOT_OF_THE_NETWORK = {"batch_size": 10, "discriminator_periods": [3, 5, 7, 11], "segment_size": 16384}


def small_generator(seed: int = 0, **sizes) -> NsfHifigan:
    """Build a network with published mels and few channels, ``sizes`` changed, whose output is clearly not silent."""
    config = VocoderConfig.from_dict(PUBLISHED_MEL | SMALL_NETWORK | sizes)
    network = NsfHifigan(config, config.num_mels, phases_per_frame=True)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        centre = 1.0 if name.endswith("weight_g") else 0.0
        tensor.copy_(centre + torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5 / 2)
    return network.eval()


def write_vocoder(folder: Path, seed: int = 0, **sizes) -> Path:
    """Write ``model`` and ``config.json`` into ``folder``; returns the path of ``model``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": small_generator(seed, **sizes).state_dict()}, folder / "model")
    config = PUBLISHED_MEL | SMALL_NETWORK | NOT_OF_THE_NETWORK | sizes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "model"
