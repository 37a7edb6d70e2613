"""Diffusion in conversion: what the synthesizer sang made finer, or sung anew without it, and vocoded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffusion.unit2mel import load_unit2mel
from inference.voices import Voices, diffusion_voices
from modules.config import load_diffusion_config
from modules.console import UserError, nested_progress
from vdecoder.mel_vocoder import load_mel_vocoder


class Refiner:
    """A diffusion model with its vocoder.

    Args:
        model_path: ``model_<step>.pt``.
        config_path: its YAML, which also names the vocoder.
        device: where both compute.
        method, speedup: the way to sample; None takes the YAML's.

    Raises UserError when a file is missing or unreadable, or model, YAML and vocoder do not belong together.
    """

    def __init__(
        self,
        model_path: str | Path,
        config_path: str | Path,
        device: torch.device,
        method: str | None = None,
        speedup: int | None = None,
    ):
        self.config = load_diffusion_config(config_path)
        self.path, self.config_path = model_path, config_path
        self.voices = diffusion_voices(self.config, config_path)
        self.vocoder = load_mel_vocoder(self.config.vocoder.ckpt, device, self.config.vocoder.type)
        self.model = load_unit2mel(model_path, self.config, self.vocoder.n_mels, device)
        self.method = method or self.config.infer.method
        self.speedup = self.config.infer.speedup if speedup is None else speedup
        found = (self.vocoder.sampling_rate, self.vocoder.hop_length)
        if found != (self.voices.sampling_rate, self.voices.hop_length):
            raise UserError(
                f"the vocoder {self.config.vocoder.ckpt} is of {found[0]} Hz and {found[1]} samples a frame, "
                f"{config_path} of {self.voices.sampling_rate} and {self.voices.hop_length}; they must be the same"
            )

    def refuse_others(self, voices: Voices) -> None:
        """UserError when a synthesizer of these voices and this diffusion model were not trained on the same data."""
        for name, what in {
            "sampling_rate": "sampling rate",
            "hop_length": "frame length",
            "encoder": "speech encoder",
        }.items():
            ours, theirs = getattr(self.voices, name), getattr(voices, name)
            if ours != theirs:
                raise UserError(
                    f"{self.config_path}: the diffusion model has the {what} {ours}, the synthesizer {theirs}; use two "
                    "that were trained on the same data"
                )

    def check(self, k_step: int | None) -> None:
        """UserError when the model cannot refine to this depth; None asks for singing without a synthesizer."""
        self.model.plan(k_step is not None, k_step, self.method, self.speedup)

    def speaker(self, speaker: Tensor, voices: Voices) -> Tensor:
        """Ids (1, 1) or weights (T, S) of a model's voices -> of this model's, which has them by name or, renamed, at
        the same places. Raises UserError when it has fewer speakers."""
        if self.config.model.n_spk == 1:
            return torch.zeros_like(speaker[:1, :1], dtype=torch.long)
        rows = {row: self.voices.spk2id.get(name, row) for name, row in voices.spk2id.items()}
        asked = rows if speaker.is_floating_point() else [int(speaker)]
        for row in asked:
            if rows[row] >= self.config.model.n_spk:
                raise UserError(
                    f"the diffusion model {self.path} has {self.config.model.n_spk} speakers, and none called "
                    f"'{voices.name_of(row)}'"
                )
        if not speaker.is_floating_point():
            return speaker.new_tensor([[rows[int(speaker)]]])
        weights = speaker.new_zeros(len(speaker), self.config.model.n_spk)
        for row, own in rows.items():
            weights[:, own] += speaker[:, row]
        return weights

    def refine(
        self,
        units: Tensor,
        f0: Tensor,
        volume: Tensor,
        speaker: Tensor,
        audio: Tensor | None,
        k_step: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Sing (1, hop_length·T) samples under a progress bar over the sampling.

        Args:
            units, f0, volume: content (1, C, T), Hz (1, T), loudness (1, T).
            speaker: ids (1, 1) or weights (T, S), of this model's speakers.
            audio: what to refine, (1, hop_length·T); None to sing from noise.
            k_step: the depth of the refinement.
            generator: source of all noise; after a synthesizer its own, as published.
        """
        mel = None if audio is None else self.vocoder.extract(audio)
        with nested_progress("diffusion", "step") as watch:
            mel = self.model.infer(
                units.transpose(1, 2),
                f0[:, :, None],
                volume[:, :, None],
                speaker,
                mel,
                None if mel is None else k_step,
                self.method,
                self.speedup,
                generator,
                watch,
            )
        return self.vocoder.synthesize(mel, f0, generator)
