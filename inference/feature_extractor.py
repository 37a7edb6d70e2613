"""The features of sound: content units from the speech encoder, F0, voicing and volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.voices import Voices
from inference.voicing import Voicing
from modules.audio.files import sinc_resample
from modules.audio.loudness import volume
from modules.console import UserError, get_logger
from modules.data.features import stretch_units
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.f0.graph import GraphPredictor
from vencoder import build_encoder, build_graph_encoder, graph_file
from vencoder.encoder import SpeechEncoder

log = get_logger("convert")


@dataclass(frozen=True)
class Features:
    """The features of a piece of T frames, on the model's device.

    Attributes:
        units: content (1, C, T).
        f0: Hz, interpolated across unvoiced frames (1, T).
        uv: 1 where voiced (1, T).
        volume: RMS (1, T).
        start: the song's sample at which the first frame begins, at the model's rate.
    """

    units: Tensor
    f0: Tensor
    uv: Tensor
    volume: Tensor
    start: int = 0


class FeatureExtractor:
    """The speech encoder that the model was trained with, and F0 predictors, each built on first use.

    With ``onnx`` it runs the ONNX graphs that ``pretrain_folder`` has, and logs which. Raises UserError if the file of
    the encoder, or later of a predictor, is missing there.
    """

    def __init__(self, voices: Voices, device: torch.device, pretrain_folder: str | Path, onnx: bool = False):
        self.voices, self.device, self.pretrain_folder, self.onnx = voices, device, Path(pretrain_folder), onnx
        self.encoder = self._build_encoder()
        self.voicing: Voicing | None = None  # of the song being converted
        self._predictors: dict[tuple[str, float], Callable] = {}

    def extract(self, wav: Tensor, key: str, threshold: float, f0_filter: bool = False, start: int = 0) -> Features:
        """Extract the features of wav (L,), with the F0 predictor of this key and threshold.

        ``start`` is stored in the result. Raises UserError if ``f0_filter`` is set and no frame has F0.
        """
        f0, uv = self.f0(wav, key, threshold)
        if self.voicing:
            self.voicing.add(wav.cpu().numpy(), uv.cpu().numpy(), self.voices.hop_length)
        if f0_filter and not f0.any():
            raise UserError("no voice was detected in the audio")
        units = self.units(wav, len(f0))
        return Features(units[None], f0[None], uv[None], volume(wav, self.voices.hop_length)[None], start)

    def units(self, wav: Tensor, frames: int) -> Tensor:
        """Compute the content units (C, frames) of wav (L,)."""
        audio = sinc_resample(wav, self.voices.sampling_rate, self.encoder.sampling_rate)
        units = self.encoder(audio)[0].to(self.device)
        return stretch_units(units, frames, self.voices.unit_interpolate_mode)

    def f0(self, wav: Tensor, key: str, threshold: float) -> tuple[Tensor, Tensor]:
        """Compute F0 in Hz and voicing, (T,) each, of wav (L,), by the predictor of this key and threshold."""
        f0, uv = map(torch.from_numpy, self.predictor(key, threshold)(wav.cpu().numpy()))
        return f0.to(self.device), uv.to(self.device)

    def predictor(self, key: str, threshold: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return the F0 predictor of this key and threshold, cached."""
        if (key, threshold) not in self._predictors:
            voices = self.voices
            settings = voices.sampling_rate, voices.hop_length, self.device, threshold
            graph = F0_PREDICTORS[key].graph_file(self.pretrain_folder)
            if self._has_graph(graph, f"the F0 predictor '{key}'", f"onnx_export.py --f0 {key}"):
                self._predictors[key, threshold] = GraphPredictor(*settings, graph)
            else:
                self._predictors[key, threshold] = build_f0_predictor(key, *settings, self.pretrain_folder)
        return self._predictors[key, threshold]

    def _build_encoder(self) -> SpeechEncoder:
        key = self.voices.encoder
        graph = graph_file(key, self.pretrain_folder)
        if self._has_graph(graph, f"the speech encoder '{key}'", f"onnx_export.py --encoder {key}"):
            return build_graph_encoder(key, graph, self.device)
        return build_encoder(key, self.device, self.pretrain_folder)

    def _has_graph(self, graph: Path | None, what: str, maker: str) -> bool:
        """Return whether ONNX is on and the graph exists; logs whether the graph or the network is used."""
        if not self.onnx or graph is None:
            return False
        if graph.is_file():
            log.info("%s is the graph %s", what, graph)
            return True
        log.info("%s computes without %s, which 'python %s' makes", what, graph, maker)
        return False
