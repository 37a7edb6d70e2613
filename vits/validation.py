"""Validation: generate clips that the model does not train on, and compare them with their recordings."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.config import Config
from modules.console import UserError
from modules.f0 import build_f0_predictor
from modules.training.interruption import StopSignal
from vits.dataset import ClipDataset, collate
from vits.judging import ClipJudges
from vits.metrics import Curve, Metrics, compare_pitch
from vits.step import mel_of
from vits.synthesizer import Synthesizer
from vits.training_log import TrainingLog

F0_PREDICTOR = "pm"  # fast, and needs no weight file


class Validation:
    """The validation clips of a configuration, and the pitch of their recordings; ``judges`` get what is generated."""

    def __init__(self, config: Config, device: torch.device, judges: ClipJudges | None = None):
        self.data, self.device, self.judges = config.data, device, judges
        self.dataset = ClipDataset(config.data.validation_files, config, training=False)
        self.predictor = build_f0_predictor(F0_PREDICTOR, config.data.sampling_rate, config.data.hop_length)
        self.real_curves: dict[int, Curve] = {}  # cache, by clip

    @torch.inference_mode()
    def run(self, net_g: Synthesizer, training_log: TrainingLog, step: int, stop: StopSignal) -> Metrics | None:
        """Generate and log every clip; returns the mean metrics, or None when ``stop`` is set before the end.

        Raises UserError when a clip's sidecar files cannot be read.
        """
        net_g.eval()
        try:
            result = self._sing(net_g, training_log, step, stop)
        finally:
            net_g.train()
        if result is None:
            return None
        clip_metrics, mels = result
        metrics = Metrics.mean(clip_metrics)
        training_log.log_validation(step, metrics, *mels)
        return metrics

    def _sing(
        self, net_g: Synthesizer, training_log: TrainingLog, step: int, stop: StopSignal
    ) -> tuple[list[Metrics], tuple[Tensor, Tensor]] | None:
        """Return all clips' metrics, and the generated and real mels (n_mels, T) of the last clip; None on ``stop``."""
        clip_metrics = []
        for index in range(len(self.dataset)):
            if stop.number:
                return None
            batch = collate([self.dataset[0, index]])
            if isinstance(batch, UserError):
                raise batch
            clip = batch.to(self.device)
            made, _ = net_g.infer(clip.c, clip.f0, clip.uv, clip.speaker_id, volume=clip.volume)
            mels = mel_of(made, self.data)[0], mel_of(clip.audio, self.data)[0]
            training_log.log_validation_clip(step, index, made[0, 0], clip.audio[0, 0], self.data.sampling_rate)
            self._judge(index, step, made[0, 0], clip.audio[0, 0])
            clip_metrics.append(self._compare(index, made[0, 0], clip.audio[0, 0], mels))
        return clip_metrics, mels

    def _judge(self, index: int, step: int, made: Tensor, real: Tensor) -> None:
        if self.judges:
            speaker = self.dataset.paths[index].parent.name
            sounds = (audio.float().cpu().numpy() for audio in (made, real))
            self.judges.add(step, speaker, *sounds, self.data.sampling_rate)

    def _compare(self, index: int, made: Tensor, real: Tensor, mels: tuple[Tensor, Tensor]) -> Metrics:
        """Compute the metrics of one clip from the generated and the real audio (1-D) and their mels (n_mels, T)."""
        if index not in self.real_curves:
            self.real_curves[index] = self._track(real)
        distance = float((mels[0] - mels[1]).abs().mean())
        return Metrics(distance, *compare_pitch(self._track(made), self.real_curves[index]))

    def _track(self, audio: Tensor) -> Curve:
        return self.predictor(audio.float().cpu().numpy())
