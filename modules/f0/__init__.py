"""F0 predictors by key.

To add one, write modules/f0/<key>.py, a row in F0_PREDICTORS below, and its key in docs/prepare.md and docs/convert.md
(the --f0_predictor flags) and pretrain/README.md. A weight file needs an entry in FAMILIES of
modules/weights/weight_file.py. tests/test_f0.py covers every row that is not neural; for a network write a test in
tests/test_pitch_networks.py. The memory that it may take is a row in tests/test_f0_memory.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modules.console import UserError
from modules.f0.contour import interpolate_unvoiced
from modules.registry import Registry, Row

if TYPE_CHECKING:
    import torch

F0_MIN, F0_MAX = 50.0, 1100.0  # Hz; the coarse F0 scale of the models has the same range


@dataclass(frozen=True)
class F0Row(Row):
    """One F0 predictor.

    Attributes:
        target: its class.
        weight: its file under ``pretrain/``, or None.
        graph: its ONNX graph there, under the name that MoeVoiceStudio reads, or None.
        weight_is_optional: it has other weights if the file is missing.
        uses_threshold: ``threshold`` has an effect.
        neural: it is a network, which runs on the device and is loaded once.
        lowest, highest: its range in Hz; a note outside comes out unvoiced or octaves off.
    """

    weight: str | None = None
    graph: str | None = None
    weight_is_optional: bool = False
    uses_threshold: bool = False
    neural: bool = False
    lowest: float = F0_MIN
    highest: float = F0_MAX

    @property
    def range(self) -> str:
        """The range as text, such as ``50 to 1100 Hz``."""
        return f"{self.lowest:.0f} to {self.highest:.0f} Hz"

    def find_weight(self, key: str, folder: str | Path) -> Path | None:
        """Return the path of its weight file in ``folder``; None if it needs none.

        Raises UserError naming the file and the alternatives if a required file is missing.
        """
        path = Path(folder) / self.weight if self.weight else None
        if path is None or path.is_file():
            return path
        if self.weight_is_optional:
            return None
        raise UserError(
            f"the F0 predictor '{key}' needs the file {path}, which is not there: fetch it with "
            f"'python download_pretrain.py --f0 {key}', or take fcpe, crepe or pm, which need none"
        )

    def graph_file(self, folder: str | Path) -> Path | None:
        """Return the path of its ONNX graph in ``folder``; None if the predictor has none.

        If only a graph of an earlier version exists, which has the weight file's name, returns that.
        """
        if self.graph is None:
            return None
        path, earlier = Path(folder) / self.graph, (Path(folder) / self.weight).with_suffix(".onnx")
        return earlier if earlier.is_file() and not path.is_file() else path


F0_PREDICTORS: Registry[F0Row] = Registry(
    "F0 predictor",
    {
        "pm": F0Row("modules.f0.pm:Praat"),
        "dio": F0Row("modules.f0.dio:Dio"),
        "harvest": F0Row("modules.f0.harvest:Harvest"),
        "crepe": F0Row("modules.f0.crepe:Crepe", uses_threshold=True, neural=True),
        # Range: its first and last bin.
        "rmvpe": F0Row(
            "modules.f0.rmvpe:Rmvpe",
            "rmvpe.pt",
            "RMVPE.onnx",
            uses_threshold=True,
            neural=True,
            lowest=32.0,
            highest=2005.0,
        ),
        # Range: from its first bin to the limit of torchfcpe's weights. Its bins go to 1975 Hz, but notes above 1107 Hz
        # come out an octave low.
        "fcpe": F0Row(
            "modules.f0.fcpe:Fcpe",
            "fcpe.pt",
            "MELPE.onnx",
            weight_is_optional=True,
            uses_threshold=True,
            neural=True,
            lowest=33.0,
        ),
    },
)


def list_predictors() -> str:
    """Return all keys, grouped by range, for help texts: ``pm, dio (50 to 1100 Hz), rmvpe (32 to 2005 Hz)``."""
    groups: dict[str, list[str]] = {}
    for key, row in F0_PREDICTORS.rows.items():
        groups.setdefault(row.range, []).append(key)
    return ", ".join(f"{', '.join(keys)} ({span})" for span, keys in groups.items())


class F0Predictor(ABC):
    """``predictor(audio)`` -> (f0, uv), one value every ``hop_length`` samples; frame i is centred on sample
    ``i * hop_length``.

    ``threshold`` is the confidence below which a frame is unvoiced, for predictors that use it; ``weight`` is the
    weight file, for predictors that read one.
    """

    def __init__(
        self,
        sampling_rate: int,
        hop_length: int,
        device: str | torch.device = "cpu",
        threshold: float = 0.05,
        weight: Path | None = None,
    ):
        self.sampling_rate = sampling_rate
        self.hop_length = hop_length
        self.device = device
        self.threshold = threshold
        self.weight = weight

    def __call__(self, audio: np.ndarray, frames: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Map ``(L,)`` float32 to f0 ``(frames,)`` in Hz and uv ``(frames,)``, 1 where voiced; both float32.

        ``frames`` defaults to ``L // hop_length`` and may differ from it by up to 3. F0 is interpolated across unvoiced
        frames. If no frame is voiced (silence, noise, less than one analysis window of audio), both are zeros. Raises
        ValueError when ``frames`` differs by more.
        """
        frames = self._checked(len(audio), frames)
        return interpolate_unvoiced(self.contour(np.ascontiguousarray(audio, np.float32), frames))

    def _checked(self, samples: int, frames: int | None) -> int:
        natural = samples // self.hop_length
        if frames is not None and abs(frames - natural) > 3:
            raise ValueError(f"{frames} frames are requested, but the sound has {natural}")
        return natural if frames is None else frames

    @abstractmethod
    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        """Return F0 in Hz of ``(L,)`` around the samples ``0, hop_length, ...``: ``(frames,)``, zero where unvoiced."""


def build_f0_predictor(
    key: str,
    sampling_rate: int = 44100,
    hop_length: int = 512,
    device: str | torch.device = "cpu",
    threshold: float = 0.05,
    folder: str | Path = "pretrain",
) -> F0Predictor:
    """Build the predictor ``key``, with its weight file from ``folder``.

    A network is shared by all predictors of the same file and device, and freed with the last of them. Raises
    UserError for an unknown key, and for a weight file that is missing, truncated or of another model.
    """
    row = F0_PREDICTORS[key]
    weight = row.find_weight(key, folder)
    return row.load()(sampling_rate, hop_length, device, threshold, weight)
