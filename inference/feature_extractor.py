"""The features of sound: content units from the speech encoder, F0, voicing and volume."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.conversion import Conversion
from inference.f0_curve import F0Curve
from inference.feature_cache import IN_MEMORY, FeatureCache, content_key
from inference.voices import Voices
from modules.audio.files import sinc_resample
from modules.audio.loudness import volume
from modules.console import UserError, get_logger
from modules.data.features import stretch_units
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.f0.graph import GraphPredictor
from vencoder import build_encoder, build_graph_encoder, find_encoder_file, graph_file
from vencoder.encoder import SpeechEncoder

log = get_logger("convert")

F0_IN_MEMORY = 32 << 20  # bytes; twelve hours


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

    With ``onnx`` it runs the ONNX graphs that ``pretrain_folder`` has, and logs which. F0 of sound that was converted
    before is cached and, with ``keep_units``, its units; both also in ``cache_folder`` if that is given. Raises
    UserError if the file of the encoder, or later of a predictor, is missing in ``pretrain_folder``. With ``half`` the
    encoder computes in half precision.
    """

    def __init__(
        self,
        voices: Voices,
        device: torch.device,
        pretrain_folder: str | Path,
        onnx: bool = False,
        cache_folder: str | Path | None = None,
        keep_units: bool = False,
        half: bool = False,
    ):
        self.voices, self.device, self.pretrain_folder, self.onnx = voices, device, Path(pretrain_folder), onnx
        self.half = half
        self.encoder, self._encoder_file = self._build_encoder()
        self._encoder_identity = voices.encoder, half, _identity(self._encoder_file)
        self._units = FeatureCache(cache_folder, IN_MEMORY if keep_units else 0)
        self._f0 = FeatureCache(cache_folder, F0_IN_MEMORY)
        self._predictors: dict[tuple[str, float], Callable] = {}
        self._identities: dict[Path | None, object] = {}  # of predictors' weights, when they were first used

    def extract(
        self,
        wav: Tensor,
        key: str,
        threshold: float,
        f0_filter: bool = False,
        start: int = 0,
        curve: F0Curve | None = None,
        segment: float = math.inf,
    ) -> Features:
        """Extract the features of wav (L,), which begins at the song's sample ``start``.

        F0 comes from ``curve``, or else from the predictor of this key and threshold. The encoder processes ``segment``
        seconds at once. Raises UserError if ``f0_filter`` is set and no frame has F0.
        """
        f0, uv = self.contour(wav, key, threshold, start, curve)
        if f0_filter and not f0.any():
            raise UserError("no voice was detected in the audio")
        units = self.units(wav, len(f0), segment)
        return Features(units[None], f0[None], uv[None], volume(wav, self.voices.hop_length)[None], start)

    def units(self, wav: Tensor, frames: int, segment: float = math.inf) -> Tensor:
        """Return the content units (C, frames) of wav (L,), encoded ``segment`` seconds at once."""
        rate = self.voices.sampling_rate
        parts = segment if len(wav) > segment * rate else None  # one segment gives the same units whatever its length
        settings = rate, parts, self.device.type, *self._encoder_identity
        units = self._units.get(content_key(wav.cpu().numpy(), *settings), lambda: self._encode(wav, segment).numpy())
        return stretch_units(torch.tensor(units, device=self.device), frames, self.voices.unit_interpolate_mode)

    def encode_again(self, audio: Tensor, frames: int) -> Tensor:
        """Return the content units (C, frames) of converted audio (L,), which are not cached."""
        return stretch_units(self._encode(audio).to(self.device), frames, self.voices.unit_interpolate_mode)

    def _encode(self, wav: Tensor, segment: float = math.inf) -> Tensor:
        audio = sinc_resample(wav, self.voices.sampling_rate, self.encoder.sampling_rate)
        return self.encoder.encode_in_segments(audio, segment)[0].cpu()

    def contour(
        self, wav: Tensor, key: str, threshold: float, start: int = 0, curve: F0Curve | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return F0 in Hz and voicing, (T,) each, of wav (L,): those of the curve or else of the predictor."""
        if curve is None:
            return self.f0(wav, key, threshold)
        rate, hop = self.voices.sampling_rate, self.voices.hop_length
        f0, uv = map(torch.from_numpy, curve.of_sound(wav.cpu().numpy(), start / rate, rate, hop))
        return f0.to(self.device), uv.to(self.device)

    def f0(self, wav: Tensor, key: str, threshold: float) -> tuple[Tensor, Tensor]:
        """Return F0 in Hz and voicing, (T,) each, of wav (L,), by the predictor of this key and threshold."""
        predictor, sound = self.predictor(key, threshold), wav.cpu().numpy()
        settings = key, threshold, self.voices.sampling_rate, self.voices.hop_length, self.device.type
        if predictor.weight not in self._identities:
            self._identities[predictor.weight] = _identity(predictor.weight)
        weights = self._identities[predictor.weight]
        f0, uv = self._f0.get(content_key(sound, *settings, weights), lambda: np.stack(predictor(sound)))
        return torch.tensor(f0, device=self.device), torch.tensor(uv, device=self.device)

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

    def files(self, conversion: Conversion) -> list[Path]:
        """Return the files of the encoder and of the conversion's F0 predictor, without those that need none."""
        files = [self._encoder_file]
        if conversion.f0_curve is None:
            files.append(self.predictor(conversion.f0_predictor, conversion.cr_threshold).weight)
        return [path for path in files if path]

    def _build_encoder(self) -> tuple[SpeechEncoder, Path | None]:
        """Build the encoder; returns it with its graph or weight file."""
        key = self.voices.encoder
        graph = graph_file(key, self.pretrain_folder)
        if self._has_graph(graph, f"the speech encoder '{key}'", f"onnx_export.py --encoder {key}"):
            return build_graph_encoder(key, graph, self.device), graph
        return build_encoder(key, self.device, self.pretrain_folder, self.half), find_encoder_file(
            key, self.pretrain_folder
        )

    def _has_graph(self, graph: Path | None, what: str, maker: str) -> bool:
        """Return whether ONNX is on and the graph exists; logs whether the graph or the network is used."""
        if not self.onnx or graph is None:
            return False
        if graph.is_file():
            log.info("%s is the graph %s", what, graph)
            return True
        log.info("%s computes without %s, which 'python %s' makes", what, graph, maker)
        return False


def _identity(weights: Path | None) -> tuple[str, int, int] | None:
    """Return what tells the weights in a file from others: its name, size and time of change."""
    if weights is None or not weights.is_file():
        return None
    status = weights.stat()
    return weights.name, status.st_size, status.st_mtime_ns
