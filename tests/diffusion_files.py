"""A diffusion model's files as training leaves them, for a voice model of the tests: tiny, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion.unit2mel import build_unit2mel
from modules.config import DiffusionConfig, save_diffusion_config
from tests.vocoder_files import write_vocoder

MELS = 12


def write_diffusion(folder: Path, *, data: dict | None = None, spk: dict | None = None, **model) -> tuple[Path, Path]:
    """``model_0.pt`` and ``config.yaml`` of mfcc features and the voices alto and tenor, with a vocoder of their own;
    ``data``, ``spk`` and ``model`` change the configuration."""
    spk = {"alto": 0, "tenor": 1} if spk is None else spk
    sizes = {"n_layers": 1, "n_chans": 8, "n_hidden": 8, "timesteps": 60, "n_spk": len(spk)}
    config = DiffusionConfig.from_dict(
        {
            "data": {"encoder": "mfcc", "encoder_out_channels": 72, **(data or {})},
            "model": sizes | model,
            "vocoder": {"ckpt": str(write_vocoder(folder / "vocoder", num_mels=MELS))},
            "spk": spk,
        }
    )
    torch.manual_seed(0)
    network = build_unit2mel(config, MELS)
    torch.nn.init.normal_(network.decoder.denoise_fn.output_projection.weight, std=0.3)
    torch.save({"global_step": 0, "model": network.state_dict()}, folder / "model_0.pt")
    save_diffusion_config(config, folder / "config.yaml")
    return folder / "model_0.pt", folder / "config.yaml"
