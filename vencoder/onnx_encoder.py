"""Encoders as ONNX graphs, run by ONNX Runtime (``requirements-onnx.txt``)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.console import UserError
from modules.onnx.session import FLOATS, open_session, run
from vencoder.encoder import SpeechEncoder

CURE = "onnx_export.py --encoder makes one that takes sound of any length"


class OnnxEncoder(SpeechEncoder):
    """The features of a graph with one input (1, 1, L) and a first output (1, N, C), whatever their names.

    Args:
        key, ssl_dim: as in the table of encoders; ``layer`` is ignored.
        path: the graph.
        device: a CUDA device is used if ONNX Runtime is built for it; otherwise the CPU.
        half: ignored; a graph has the precision of its export.
        padding: samples of silence that the graph adds on each side, if not the class's default.

    Raises UserError when onnxruntime is not installed, when the file is no such graph or of another size, and when the
    graph fails on the audio.
    """

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: int | None,
        path: str | Path,
        device: str | torch.device = "cpu",
        half: bool = False,
        padding: int | None = None,
    ):
        super().__init__(key, ssl_dim, device, half=False)
        if padding is not None:
            self.padding = padding
        self.path = path
        self.session = open_session(path, self.device)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        names = ", ".join(one.name for one in inputs)
        if len(inputs) != 1 or inputs[0].type not in FLOATS or len(inputs[0].shape) not in (2, 3):
            raise UserError(f"{path} is no speech encoder: its inputs are {names}, and should be one sound (1, 1, L)")
        self.input, self.output = inputs[0], outputs[0]
        width = self.output.shape[-1] if self.output.shape else None
        if isinstance(width, int) and width != ssl_dim:
            self._refuse_width(width)

    def features(self, audio: Tensor) -> Tensor:
        sound = audio.cpu().numpy().astype(FLOATS[self.input.type])
        sound = sound.reshape((1,) * (len(self.input.shape) - 1) + (-1,))
        features = torch.from_numpy(run(self.session, self.path, [self.output.name], {self.input.name: sound}, CURE)[0])
        wanted = self.frames(len(audio))
        if features.dim() != 3 or abs(features.shape[1] - wanted) > 1:
            shape = tuple(features.shape)
            raise UserError(f"{self.path} gives {shape} for {len(audio)} samples, and should give {wanted} frames")
        if features.shape[2] != self.ssl_dim:
            self._refuse_width(features.shape[2])
        columns = features[0].T.float()[:, :wanted]
        padded = torch.nn.functional.pad(columns[None], (0, wanted - columns.shape[1]), mode="replicate")[0]
        return padded.to(self.device)

    def _refuse_width(self, width: int) -> None:
        sizes = f"it gives {width} features a frame, not {self.ssl_dim}"
        raise UserError(f"{self.path} is not the file of the speech encoder '{self.key}': {sizes}")


class OnnxHubertSoft(OnnxEncoder):
    """HuBERT-Soft's graph, which adds 40 samples of silence on each side."""

    padding = 40
