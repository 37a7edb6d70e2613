"""What a diffusion model makes of clips that it does not learn from: loss, speed, pictures and sound."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from diffusion.dataset import DiffusionBatch, DiffusionDataset
from diffusion.logbook import Logbook
from diffusion.unit2mel import Unit2Mel
from modules.audio.files import read_audio
from modules.config import DiffusionConfig
from modules.console import UserError, get_logger, nested_progress
from modules.data.sampler import seeded_generator
from modules.training.interruption import StopSignal
from vdecoder.mel_vocoder import MelVocoder, load_mel_vocoder

log = get_logger("train_diff")


class Validation:
    """The validation clips, and the vocoder through which they are heard.

    Every validation draws the same noise, so what differs between two of them is the model.
    """

    def __init__(self, config: DiffusionConfig, vocoder: MelVocoder, device: torch.device):
        self.config, self.vocoder, self.device = config, vocoder, device
        self.dataset = DiffusionDataset(
            config.data.validation_files, config, n_mels=vocoder.n_mels, training=False, device=device
        )

    def run(self, model: Unit2Mel, logbook: Logbook, step: int, stop: StopSignal) -> float | None:
        """Sing every clip and tell the logbook; returns the mean loss, each clip's over ``batch_size`` draws, or None
        when ``stop`` comes before the end.

        Raises UserError when a clip's companions cannot be read.
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
            log.info("%s: real-time factor %.3g", name, seconds * self.vocoder.sampling_rate / len(audio))
            logbook.picture(step, name, clip.mel[0], mel)
            logbook.sound(step, name, torch.from_numpy(read_audio(path)[0]), audio, self.vocoder.sampling_rate)
        model.train()
        loss = sum(losses) / len(losses)
        logbook.validation(step, loss)
        return loss

    @torch.inference_mode()
    def _loss(self, model: Unit2Mel, clip: DiffusionBatch, index: int) -> float:
        draws = seeded_generator(self.config.train.seed, 0, 0, index)
        inputs = clip.units, clip.f0, clip.volume, clip.mel, clip.speaker_id, clip.aug_shift, draws
        losses = [model.loss(*inputs) for _ in range(self.config.train.batch_size)]
        return float(torch.stack(losses).mean())

    def _sing(self, model: Unit2Mel, clip: DiffusionBatch, index: int, name: str) -> tuple[Tensor, Tensor, float]:
        """A clip's mel (T, n_mels) and sound (L,) as the model makes it, and how many seconds that took.

        A shallow model refines the recording's mel, from the deepest step that it learns.
        """
        draws = seeded_generator(self.config.train.seed, 0, 1, index)
        infer, given = self.config.infer, clip.mel if model.is_shallow else None
        began = time.monotonic()
        with nested_progress(f"singing {name}", "step") as watch:
            mel = model.infer(
                clip.units, clip.f0, clip.volume, clip.speaker_id, given, None,
                infer.method, infer.speedup, draws, watch,
            )  # fmt: skip
        audio = self.vocoder.synthesize(mel, clip.f0[:, :, 0], draws)[0].cpu()
        return mel[0], audio, time.monotonic() - began


def load_vocoder(config: DiffusionConfig, device: torch.device) -> MelVocoder:
    """The vocoder that the configuration names.

    Raises UserError when its files are missing or broken, or its rate or hop is not that of the data.
    """
    path, data = Path(config.vocoder.ckpt), config.data
    vocoder = load_mel_vocoder(path, device, config.vocoder.type)
    if (vocoder.sampling_rate, vocoder.hop_length) != (data.sampling_rate, data.block_size):
        raise UserError(
            f"the vocoder {path} is of {vocoder.sampling_rate} Hz and {vocoder.hop_length} samples a frame, the "
            f"configuration's data of {data.sampling_rate} Hz and {data.block_size} (data.sampling_rate, "
            "data.block_size); name the vocoder that the data were prepared for as vocoder.ckpt"
        )
    return vocoder
