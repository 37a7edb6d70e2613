"""What the networks hear of a song: its content by the speech encoder, and its F0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.voices import Voices
from inference.voicing import Voicing
from modules.audio.files import sinc_resample
from modules.console import get_logger
from modules.data.features import stretch_units
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.f0.graph import GraphPredictor
from vencoder import build_encoder, build_graph_encoder, graph_file
from vencoder.encoder import SpeechEncoder

log = get_logger("convert")


class Listener:
    """The speech encoder that these voices were trained with, and F0 predictors, each built when first asked for.

    With ``onnx`` each is an ONNX graph where ``pretrain_folder`` has one, and the log says which. Raises UserError when
    the encoder, or later a predictor, lacks its file there.
    """

    def __init__(self, voices: Voices, device: torch.device, pretrain_folder: str | Path, onnx: bool = False):
        self.voices, self.device, self.pretrain_folder, self.onnx = voices, device, Path(pretrain_folder), onnx
        self.encoder = self._build_encoder()
        self.voicing: Voicing | None = None  # of the song that is being converted
        self._predictors: dict[tuple[str, float], Callable] = {}

    def units(self, wav: Tensor, frames: int) -> Tensor:
        """Content units (C, frames) of wav (L,)."""
        audio = sinc_resample(wav, self.voices.sampling_rate, self.encoder.sampling_rate)
        units = self.encoder(audio)[0].to(self.device)
        return stretch_units(units, frames, self.voices.unit_interpolate_mode)

    def f0(self, wav: Tensor, key: str, threshold: float) -> tuple[Tensor, Tensor]:
        """F0 in Hz and voicing, (T,) each, of wav (L,), by the predictor of this key and threshold."""
        audio = wav.cpu().numpy()
        f0, uv = self.predictor(key, threshold)(audio)
        if self.voicing:
            self.voicing.add(audio, uv, self.voices.hop_length)
        f0, uv = torch.from_numpy(f0), torch.from_numpy(uv)
        return f0.to(self.device), uv.to(self.device)

    def predictor(self, key: str, threshold: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The F0 predictor of this key and threshold, kept from then on."""
        if (key, threshold) not in self._predictors:
            voices = self.voices
            settings = voices.sampling_rate, voices.hop_length, self.device, threshold
            graph = F0_PREDICTORS[key].graph_file(self.pretrain_folder)
            if self._takes(graph, f"the F0 predictor '{key}'", f"onnx_export.py --f0 {key}"):
                self._predictors[key, threshold] = GraphPredictor(*settings, graph)
            else:
                self._predictors[key, threshold] = build_f0_predictor(key, *settings, self.pretrain_folder)
        return self._predictors[key, threshold]

    def _build_encoder(self) -> SpeechEncoder:
        key = self.voices.encoder
        graph = graph_file(key, self.pretrain_folder)
        if self._takes(graph, f"the speech encoder '{key}'", f"onnx_export.py --encoder {key}"):
            return build_graph_encoder(key, graph, self.device)
        return build_encoder(key, self.device, self.pretrain_folder)

    def _takes(self, graph: Path | None, what: str, maker: str) -> bool:
        """Whether graphs are wanted and this one is there; the log is told what computes then."""
        if not self.onnx or graph is None:
            return False
        if graph.is_file():
            log.info("%s is the graph %s", what, graph)
            return True
        log.info("%s computes without %s, which 'python %s' makes", what, graph, maker)
        return False
