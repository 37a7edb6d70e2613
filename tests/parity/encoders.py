"""Adapters for the speech encoder fixtures (H_)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.checkpoint_files import write_fairseq_checkpoint
from tests.parity import recipe_values
from vencoder import ENCODERS, build_encoder
from vencoder.fairseq_hubert import FairseqHubert

Arrays = dict[str, np.ndarray]


def contentvec(ins: Arrays, meta: dict) -> dict:
    """Through the real path: a checkpoint file in a folder, read by build_encoder."""
    waves = {name.removeprefix("wav"): torch.from_numpy(wave) for name, wave in ins.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = _recipe_checkpoint(Path(folder) / ENCODERS["vec768l12"].weight, meta)
        encoders = {key: build_encoder(key, folder=folder) for key in ("vec768l12", "vec256l9")}
        first_layer = FairseqHubert(path, 1, projected=False)
    outputs = {key + suffix: encoder(wave) for key, encoder in encoders.items() for suffix, wave in waves.items()}
    with torch.inference_mode():
        outputs["layer1"] = first_layer(waves[""][None])
        outputs["no_output_layer"] = encoders["vec768l12"].network(waves[""][None])
    return outputs


def _recipe_checkpoint(path: Path, meta: dict) -> Path:
    shapes, seed = meta["state_dict"], meta["recipe_seed"]
    weights = {name: torch.from_numpy(recipe_values(name, tuple(shape), seed)) for name, shape in shapes.items()}
    return write_fairseq_checkpoint(path, weights)


ADAPTERS = {"H_contentvec": contentvec}
