"""F0 predictors by key. Adding one is a file here, a row below and a test."""

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

F0_MIN, F0_MAX = 50.0, 1100.0  # Hz; the coarse scale that models are trained on spans the same


@dataclass(frozen=True)
class F0Row(Row):
    """A predictor: its class, its file under ``pretrain/`` if there is one, whether it has weights without it, whether
    ``threshold`` means anything to it, and whether it is a network, which runs on the device and is worth loading once.

    ``lowest`` and ``highest`` (Hz) are the F0 that it can find; a note outside of them is unvoiced or octaves off.
    """

    weight: str | None = None
    weight_is_optional: bool = False
    uses_threshold: bool = False
    neural: bool = False
    lowest: float = F0_MIN
    highest: float = F0_MAX

    @property
    def range(self) -> str:
        """``lowest`` and ``highest`` in words."""
        return f"{self.lowest:.0f} to {self.highest:.0f} Hz"

    def find_weight(self, key: str, folder: str | Path) -> Path | None:
        """Its file in ``folder``; None where it does without. Raises UserError naming the file and the alternatives."""
        path = Path(folder) / self.weight if self.weight else None
        if path is None or path.is_file():
            return path
        if self.weight_is_optional:
            return None
        raise UserError(
            f"the F0 predictor '{key}' needs the file {path}, which is not there: fetch it as pretrain/README.md says, "
            "or take fcpe, crepe or pm, which need none"
        )

    def graph_file(self, folder: str | Path) -> Path | None:
        """Return the path of its ONNX graph, the weight file's name in .onnx; None if the predictor needs no file."""
        return (Path(folder) / self.weight).with_suffix(".onnx") if self.weight else None


F0_PREDICTORS: Registry[F0Row] = Registry(
    "F0 predictor",
    {
        "pm": F0Row("modules.f0.pm:Praat"),
        "dio": F0Row("modules.f0.dio:Dio"),
        "harvest": F0Row("modules.f0.harvest:Harvest"),
        "crepe": F0Row("modules.f0.crepe:Crepe", uses_threshold=True, neural=True),
        # The first and the last of its bins.
        "rmvpe": F0Row(
            "modules.f0.rmvpe:Rmvpe", "rmvpe.pt", uses_threshold=True, neural=True, lowest=32.0, highest=2005.0
        ),
        # From its first bin to what torchfcpe's weights reach: its bins go to 1975 Hz, but above 1107 Hz notes come out
        # an octave low.
        "fcpe": F0Row(
            "modules.f0.fcpe:Fcpe", "fcpe.pt", weight_is_optional=True, uses_threshold=True, neural=True, lowest=33.0
        ),
    },
)


def list_predictors() -> str:
    """All keys, each group with its range, for help texts: ``pm, dio (50 to 1100 Hz), rmvpe (32 to 2005 Hz)``."""
    groups: dict[str, list[str]] = {}
    for key, row in F0_PREDICTORS.rows.items():
        groups.setdefault(row.range, []).append(key)
    return ", ".join(f"{', '.join(keys)} ({span})" for span, keys in groups.items())


class F0Predictor(ABC):
    """``predictor(audio)`` -> (f0, uv), one value a frame of ``hop_length`` samples.

    ``threshold`` is the confidence below which a frame is unvoiced, in those predictors that have one; ``weight`` the
    weight file of those that read one.
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
        """``(L,)`` float32 -> f0 ``(frames,)`` in Hz and uv ``(frames,)``, 1 where voiced; both float32.

        ``frames`` is ``L // hop_length`` unless given, and may differ from it by 3. F0 is drawn through unvoiced
        frames; where nothing is voiced (silence, noise, less than one analysis window of sound) both are zeros.
        Raises ValueError when ``frames`` cannot belong to the sound.
        """
        frames = self._checked(len(audio), frames)
        return interpolate_unvoiced(self.contour(np.ascontiguousarray(audio, np.float32), frames))

    def _checked(self, samples: int, frames: int | None) -> int:
        natural = samples // self.hop_length
        if frames is not None and abs(frames - natural) > 3:
            raise ValueError(f"{frames} frames were asked for, but the sound has {natural}")
        return natural if frames is None else frames

    @abstractmethod
    def contour(self, audio: np.ndarray, frames: int) -> np.ndarray:
        """F0 in Hz of ``(L,)`` as ``(frames,)``, zero where unvoiced."""


def build_f0_predictor(
    key: str,
    sampling_rate: int = 44100,
    hop_length: int = 512,
    device: str | torch.device = "cpu",
    threshold: float = 0.05,
    folder: str | Path = "pretrain",
) -> F0Predictor:
    """The predictor called ``key``; ``folder`` is where its weight file lies.

    A network's weights are read once a process and shared by all predictors of that file and device. Raises UserError
    with the known keys when there is none of that name, and for a weight file that is missing, truncated or another's.
    """
    row = F0_PREDICTORS[key]
    weight = row.find_weight(key, folder)
    return row.load()(sampling_rate, hop_length, device, threshold, weight)
