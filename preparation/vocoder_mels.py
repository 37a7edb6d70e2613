"""The vocoder's mel spectrogram of a clip, plain and augmented in loudness and pitch, for training the diffusion."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.audio.loudness import random_gain, volume
from modules.audio.spectrogram import VocoderMel
from modules.config import Config, DiffusionConfig
from modules.console import UserError
from modules.data.features import Augmented
from vdecoder.vocoder_config import load_vocoder_config

MAX_SHIFT = 5  # semitones, up or down, as published


def vocoder_mel(config: Config, diffusion: DiffusionConfig) -> VocoderMel:
    """Return the mel spectrogram of the vocoder named in ``diffusion``; only the vocoder's ``config.json`` is read.

    Raises UserError if that file is missing, or if the two configurations and the vocoder do not fit together.
    """
    data = config.data
    if diffusion.data.encoder != config.model.speech_encoder:
        raise UserError(
            f"the speech encoder is '{config.model.speech_encoder}' in config.json and '{diffusion.data.encoder}' in "
            "diffusion.yaml; run 'python preprocess_flist_config.py' again, which writes both"
        )
    path = Path(diffusion.vocoder.ckpt).with_name("config.json")
    mel = load_vocoder_config(path).mel
    for of_mel, of_config, of_diffusion, what in (
        (mel.sampling_rate, data.sampling_rate, diffusion.data.sampling_rate, "sampling rate"),
        (mel.hop_length, data.hop_length, diffusion.data.block_size, "hop"),
    ):
        if not of_mel == of_config == of_diffusion:
            raise UserError(
                f"the vocoder's {what} is {of_mel} ({path}), but config.json has {of_config} and "
                f"diffusion.yaml {of_diffusion}; they must be equal"
            )
    return mel


def plain_mel(audio: Tensor, mel: VocoderMel) -> Tensor:
    """Compute the mel spectrogram: ``(L,)`` -> ``(T, M)``."""
    return mel(audio[None])[0].T


def augment(audio: Tensor, mel: VocoderMel, seed: int) -> Augmented:
    """Scale ``(L,)`` by a random gain and return its volume, and its mel shifted by up to MAX_SHIFT semitones.

    The same sound and seed give the same values.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    louder = audio * random_gain(audio, generator)
    shift = MAX_SHIFT * float(2 * torch.rand((), generator=generator) - 1)
    shifted = mel(louder[None], keyshift=shift)[0].T
    return Augmented(shifted.numpy(), volume(louder, mel.hop_length).numpy(), shift)
