"""What the networks hear of a song: its content by the speech encoder, and its F0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.voices import Voices
from modules.audio import sinc_resample
from modules.clip_files import stretch_units
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.f0.graph import GraphPredictor
from vencoder import ENCODERS, build_encoder


class Listener:
    """The speech encoder that these voices were trained with, and F0 predictors, each built when first asked for.

    With ``onnx`` each is an ONNX graph where ``pretrain_folder`` has one. Raises UserError when the encoder, or later a
    predictor, lacks its file there.
    """

    def __init__(self, voices: Voices, device: torch.device, pretrain_folder: str | Path, onnx: bool = False):
        self.voices, self.device, self.pretrain_folder, self.onnx = voices, device, Path(pretrain_folder), onnx
        self.encoder = build_encoder(self._encoder_key(), device, pretrain_folder)
        self._predictors: dict[tuple[str, float], Callable] = {}

    def units(self, wav: Tensor, frames: int) -> Tensor:
        """Content units (C, frames) of wav (L,)."""
        audio = sinc_resample(wav, self.voices.sampling_rate, self.encoder.sampling_rate)
        units = self.encoder(audio)[0].to(self.device)
        return stretch_units(units, frames, self.voices.unit_interpolate_mode)

    def f0(self, wav: Tensor, key: str, threshold: float) -> tuple[Tensor, Tensor]:
        """F0 in Hz and voicing, (T,) each, of wav (L,), by the predictor of this key and threshold."""
        f0, uv = (torch.from_numpy(track) for track in self.predictor(key, threshold)(wav.cpu().numpy()))
        return f0.to(self.device), uv.to(self.device)

    def predictor(self, key: str, threshold: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The F0 predictor of this key and threshold, kept from then on."""
        if (key, threshold) not in self._predictors:
            voices = self.voices
            settings = voices.sampling_rate, voices.hop_length, self.device, threshold
            weight = F0_PREDICTORS[key].weight
            graph = self.pretrain_folder / Path(weight or key).with_suffix(".onnx")
            if self.onnx and graph.is_file():
                self._predictors[key, threshold] = GraphPredictor(*settings, graph)
            else:
                self._predictors[key, threshold] = build_f0_predictor(key, *settings, self.pretrain_folder)
        return self._predictors[key, threshold]

    def _encoder_key(self) -> str:
        """The voices' encoder or, with ``onnx``, its graph where the table and the folder have one."""
        key, graph = self.voices.encoder, f"{self.voices.encoder}-onnx"
        if self.onnx and graph in ENCODERS and (self.pretrain_folder / ENCODERS[graph].weight).is_file():
            return graph
        return key
