"""Validation: the loss of a diffusion model on clips that it does not train on, its speed, pictures and sound."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from diffusion.dataset import DiffusionBatch, DiffusionDataset
from diffusion.training_log import TrainingLog
from diffusion.unit2mel import Unit2Mel
from modules.audio.files import read_audio
from modules.config import DiffusionConfig
from modules.console import UserError, get_logger, nested_progress
from modules.data.sampler import seeded_generator
from modules.training.interruption import StopSignal
from vdecoder.mel_vocoder import MelVocoder, load_mel_vocoder

log = get_logger("train_diff")


class Validation:
    """The validation clips, and the vocoder that makes them audible.

    Every validation samples the same noise, so two of them differ only by the model.
    """

    def __init__(self, config: DiffusionConfig, vocoder: MelVocoder, device: torch.device):
        self.config, self.vocoder, self.device = config, vocoder, device
        self.dataset = DiffusionDataset(
            config.data.validation_files, config, n_mels=vocoder.n_mels, training=False, device=device
        )

    def run(self, model: Unit2Mel, training_log: TrainingLog, step: int, stop: StopSignal) -> float | None:
        """Generate and log every clip; returns the mean loss, or None when ``stop`` is set before the end.

        A clip's loss is the mean over ``batch_size`` random steps and noises. Raises UserError when a clip's sidecar
        files cannot be read.
        """
        model.eval()
        losses = []
        for index, path in enumerate(self.dataset.paths):
            if stop.number:
                model.train()
                return None
            clip = self.dataset[1, index]
            if isinstance(clip, UserError):
                raise clip
            clip = clip.to(self.device)
            losses.append(self._loss(model, clip, index))
            name = f"{path.parent.name}_{path.stem}"
            mel, audio, seconds = self._sing(model, clip, index, name)
            rate, real = self.vocoder.sampling_rate, torch.from_numpy(read_audio(path)[0])
            log.info("%s: real-time factor %.3g", name, seconds * rate / len(audio))
            training_log.log_clip_picture(step, name, clip.mel[0], mel)
            training_log.log_clip_audio(step, name, real, audio, rate)
        model.train()
        loss = sum(losses) / len(losses)
        training_log.log_validation(step, loss)
        return loss

    @torch.inference_mode()
    def _loss(self, model: Unit2Mel, clip: DiffusionBatch, index: int) -> float:
        generator = seeded_generator(self.config.train.seed, 0, 0, index)
        inputs = clip.units, clip.f0, clip.volume, clip.mel, clip.speaker_id, clip.aug_shift, generator
        losses = [model.loss(*inputs) for _ in range(self.config.train.batch_size)]
        return float(torch.stack(losses).mean())

    def _sing(self, model: Unit2Mel, clip: DiffusionBatch, index: int, name: str) -> tuple[Tensor, Tensor, float]:
        """Generate the clip's mel (T, n_mels) and audio (L,); returns both, and the seconds that this took.

        A shallow model refines the recording's mel, from the deepest step that it was trained on.
        """
        generator = seeded_generator(self.config.train.seed, 0, 1, index)
        infer, given = self.config.infer, clip.mel if model.is_shallow else None
        began = time.monotonic()
        with nested_progress(f"singing {name}", "step") as watch:
            mel = model.infer(
                clip.units, clip.f0, clip.volume, clip.speaker_id, given, None,
                infer.method, infer.speedup, generator, watch,
            )  # fmt: skip
        audio = self.vocoder.synthesize(mel, clip.f0[:, :, 0], generator)[0].cpu()
        return mel[0], audio, time.monotonic() - began


def load_vocoder(config: DiffusionConfig, device: torch.device) -> MelVocoder:
    """Load the vocoder that the configuration names.

    Raises UserError when its files are missing or broken, or its rate or hop differs from the data's.
    """
    path, data = Path(config.vocoder.ckpt), config.data
    vocoder = load_mel_vocoder(path, device, config.vocoder.type)
    if (vocoder.sampling_rate, vocoder.hop_length) != (data.sampling_rate, data.block_size):
        raise UserError(
            f"the vocoder {path} has {vocoder.sampling_rate} Hz and {vocoder.hop_length} samples a frame, the "
            f"configuration's data {data.sampling_rate} Hz and {data.block_size} (data.sampling_rate, "
            "data.block_size); name the vocoder that the data were prepared for as vocoder.ckpt"
        )
    return vocoder
