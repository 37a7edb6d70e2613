"""Diffusion in conversion: refines the synthesizer's output, or replaces the synthesizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion.unit2mel import load_unit2mel
from inference.feature_extractor import Features
from inference.voices import Voices, diffusion_voices
from modules.config import load_diffusion_config
from modules.console import UserError, nested_progress
from vdecoder.mel_vocoder import load_conversion_vocoder


class Refiner:
    """A diffusion model with its vocoder.

    Args:
        model_path: ``model_<step>.pt``.
        config_path: its YAML, which names the vocoder.
        device: where both compute.
        method, speedup: of the sampler; None takes the YAML's.
        dtype: of the vocoder's residual blocks.

    Raises UserError if a file is missing or unreadable, or model, YAML and vocoder do not match.
    """

    def __init__(
        self,
        model_path: str | Path,
        config_path: str | Path,
        device: torch.device,
        method: str | None = None,
        speedup: int | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.config = load_diffusion_config(config_path)
        self.path, self.config_path = model_path, config_path
        self.voices = diffusion_voices(self.config, config_path)
        kind = self.config.vocoder.type
        self.vocoder = load_conversion_vocoder(Path(self.config.vocoder.ckpt), device, kind, dtype)
        self.model = load_unit2mel(model_path, self.config, self.vocoder.n_mels, device)
        self.method = method or self.config.infer.method
        self.speedup = self.config.infer.speedup if speedup is None else speedup
        found = (self.vocoder.sampling_rate, self.vocoder.hop_length)
        if found != (self.voices.sampling_rate, self.voices.hop_length):
            raise UserError(
                f"the vocoder {self.config.vocoder.ckpt} is of {found[0]} Hz and {found[1]} samples a frame, "
                f"{config_path} of {self.voices.sampling_rate} and {self.voices.hop_length}; they must be the same"
            )

    def check_voices(self, voices: Voices) -> None:
        """Raise UserError if a synthesizer has another sampling rate, frame length or speech encoder."""
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
        """Raise UserError if the model cannot refine to this depth; None stands for sampling without a synthesizer."""
        self.model.plan(k_step is not None, k_step, self.method, self.speedup)

    def speaker(self, speaker: Tensor, voices: Voices) -> Tensor:
        """Convert ids (1, 1) or weights (T, S) of other voices into this model's, by name or else by the same row.

        Raises UserError if this model has no such speaker.
        """
        if self.config.model.n_spk == 1:
            return torch.zeros_like(speaker[:1, :1], dtype=torch.long)
        rows = {row: self.voices.spk2id.get(name, row) for name, row in voices.spk2id.items()}
        used = rows if speaker.is_floating_point() else [int(speaker)]
        for row in used:
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
        features: Features,
        speaker: Tensor,
        audio: Tensor | None,
        k_step: int,
        generator: torch.Generator,
        watch: Callable[[], None] | None = None,
    ) -> Tensor:
        """Generate audio (1, hop_length·T), with a progress bar.

        Args:
            features: of the piece; its T frames give the length of the output.
            speaker: ids (1, 1) or weights (T, S), of this model's speakers.
            audio: to refine, (1, hop_length·T); None to start from noise.
            k_step: depth of the refinement.
            generator: of all random numbers; the synthesizer's own if there is one, as published.
            watch: called after every step.
        """
        mel = None if audio is None else self.vocoder.extract(audio)
        with nested_progress("diffusion", "step") as show:

            def step(done: int, total: int) -> None:
                show(done, total)
                if watch:
                    watch()

            mel = self.model.infer(
                features.units.transpose(1, 2),
                features.f0[:, :, None],
                features.volume[:, :, None],
                speaker,
                mel,
                None if mel is None else k_step,
                self.method,
                self.speedup,
                generator,
                step,
            )
        return self.vocoder.synthesize(mel, features.f0, generator)
