"""What a model makes of clips that it does not learn from: how near to the recording in sound, pitch and voicing."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.config import Config
from modules.console import UserError
from modules.f0 import build_f0_predictor
from modules.training.interruption import StopSignal
from vits.dataset import ClipDataset, collate
from vits.logbook import Logbook
from vits.step import mel_of
from vits.synthesizer import Synthesizer

F0_PREDICTOR = "pm"  # quick, and without weights that a machine might lack
FEWEST_FRAMES = 10  # voiced in both sounds, below which their pitches cannot be compared

Curve = tuple[NDArray[np.float32], NDArray[np.float32]]  # f0 (T,) in Hz, uv (T,): 1 where voiced


@dataclass(frozen=True)
class Metrics:
    """Means over the validation clips, each sung anew with the pitch and, if the model knows it, loudness it has.

    ``mel_distance``: mean absolute difference of the log mel spectrograms (natural logarithm), less is better.
    ``f0_correlation``: Pearson's, of log F0 where both sounds are voiced; NaN where no clip has enough of that.
    ``vuv_error``: the part of the frames that are voiced in one of the sounds only, 0 to 1.
    """

    mel_distance: float
    f0_correlation: float
    vuv_error: float

    @classmethod
    def mean(cls, clips: list[Metrics]) -> Metrics:
        """The means over the clips; that of the F0 over those whose pitches could be compared."""
        distance, correlation, error = np.array([astuple(clip) for clip in clips]).T
        known = correlation[~np.isnan(correlation)]
        return cls(float(distance.mean()), float(known.mean()) if len(known) else float("nan"), float(error.mean()))

    def __str__(self) -> str:
        return (
            f"mel distance {self.mel_distance:.4f}, F0 correlation {self.f0_correlation:.4f}, "
            f"V/UV error {self.vuv_error:.2%}"
        )


class Validation:
    """The validation clips of a configuration, and the pitch of their recordings."""

    def __init__(self, config: Config, device: torch.device):
        self.data, self.device = config.data, device
        self.dataset = ClipDataset(config.data.validation_files, config, training=False)
        self.predictor = build_f0_predictor(F0_PREDICTOR, config.data.sampling_rate, config.data.hop_length)
        self.recorded: dict[int, Curve] = {}  # by clip: the recordings stay what they are

    @torch.inference_mode()
    def run(self, net_g: Synthesizer, logbook: Logbook, step: int, stop: StopSignal) -> Metrics | None:
        """Sing every clip, tell the logbook, and return how near that came; None when ``stop`` comes before the end.

        Raises UserError when a clip's companions cannot be read.
        """
        net_g.eval()
        try:
            sung = self._sing(net_g, logbook, step, stop)
        finally:
            net_g.train()
        if sung is None:
            return None
        found, mels = sung
        metrics = Metrics.mean(found)
        logbook.evaluated(step, metrics, *mels)
        return metrics

    def _sing(
        self, net_g: Synthesizer, logbook: Logbook, step: int, stop: StopSignal
    ) -> tuple[list[Metrics], tuple[Tensor, Tensor]] | None:
        """Every clip's metrics, and the mels (n_mels, T) of the last one, made and real."""
        found = []
        for index in range(len(self.dataset)):
            if stop.number:
                return None
            batch = collate([self.dataset[0, index]])
            if isinstance(batch, UserError):
                raise batch
            clip = batch.to(self.device)
            made, _ = net_g.infer(clip.c, clip.f0, clip.uv, clip.speaker_id, volume=clip.volume)
            mels = mel_of(made, self.data)[0], mel_of(clip.audio, self.data)[0]
            logbook.evaluation(step, index, made[0, 0], clip.audio[0, 0], self.data.sampling_rate)
            found.append(self._compare(index, made[0, 0], clip.audio[0, 0], mels))
        return found, mels

    def _compare(self, index: int, made: Tensor, real: Tensor, mels: tuple[Tensor, Tensor]) -> Metrics:
        """One clip; 1-D audio, mels (n_mels, T) of the same two sounds."""
        if index not in self.recorded:
            self.recorded[index] = self._track(real)
        distance = float((mels[0] - mels[1]).abs().mean())
        return Metrics(distance, *compare_pitch(self._track(made), self.recorded[index]))

    def _track(self, audio: Tensor) -> Curve:
        return self.predictor(audio.float().cpu().numpy())


def compare_pitch(made: Curve, real: Curve) -> tuple[float, float]:
    """The correlation of two curves' log F0 where both are voiced (NaN when unknown), and their V/UV error."""
    voiced_made, voiced_real = made[1] > 0, real[1] > 0
    error = float((voiced_made != voiced_real).mean()) if len(voiced_real) else float("nan")
    both = voiced_made & voiced_real
    if both.sum() < FEWEST_FRAMES:
        return float("nan"), error
    curves = np.log(made[0][both].astype(np.float64)), np.log(real[0][both].astype(np.float64))
    if min(curve.std() for curve in curves) < 1e-6:  # held notes to the last digit correlate with nothing
        return float("nan"), error
    return float(np.corrcoef(*curves)[0, 1]), error
