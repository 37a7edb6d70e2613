"""A small mel vocoder, trained on the demo's clips because the demo has no published weights.

It is trained for a minute by a multi-resolution spectral loss (Yamamoto et al., https://arxiv.org/abs/1910.11480)
without a discriminator, which is good enough to hear the effect of the diffusion model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.atomic_file import atomic_path, write_text
from modules.audio.files import read_audio
from modules.audio.spectrogram import linear_spectrogram
from modules.console import progress
from modules.data.features import ClipFiles
from modules.device import pick_device
from modules.training.checkpoint import load_checkpoint
from vdecoder.mel_vocoder import load_mel_vocoder
from vdecoder.nsf_hifigan import NsfHifigan
from vdecoder.vocoder_config import VocoderConfig

CONFIG = {
    "sampling_rate": 44100, "num_mels": 64, "n_fft": 2048, "win_size": 2048, "hop_size": 512, "fmin": 40,
    "fmax": 16000, "upsample_rates": [8, 4, 4, 4], "upsample_kernel_sizes": [16, 8, 8, 8],
    "upsample_initial_channel": 128, "resblock": "2", "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
}  # fmt: skip
BATCH, CROP = 8, 16  # clips, frames
RESOLUTIONS = ((2048, 512), (1024, 256), (512, 128), (256, 64))  # window and hop in samples
LEARNING_RATE, LAST_RATE = 8e-4, 3e-4


def make_vocoder(path: Path, clips: Sequence[Path], generator_path: Path, steps: int, seed: int = 0) -> None:
    """Train on prepared clips; write ``path`` and the ``config.json`` beside it, in the published format.

    Training starts from the synthesizer's decoder in ``generator_path``; only the first layer has new weights.
    """
    pick_device("cpu")  # also makes denormal numbers count as zero
    torch.manual_seed(seed)
    config = VocoderConfig.from_dict(CONFIG)
    network = NsfHifigan(config, config.num_mels, phases_per_frame=True)
    known = load_checkpoint(generator_path)["model"]
    own = {name: known.get(f"dec.{name}") for name in network.state_dict() if not name.startswith("conv_pre")}
    network.load_state_dict(own, strict=False)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, (0.8, 0.99))
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, (LAST_RATE / LEARNING_RATE) ** (1 / steps))
    songs = [_read(clip, config) for clip in clips]
    generator = np.random.default_rng(seed)
    for _ in progress(range(steps), description="vocoder", unit="step"):
        mel, f0, audio = map(torch.stack, zip(*(_crop(*songs[i], generator, config.hop_size)
                             for i in generator.integers(len(songs), size=BATCH)), strict=True))  # fmt: skip
        loss = spectral_loss(network(mel, f0)[:, 0], audio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save({"generator": network.state_dict()}, file)
    write_text(path.with_name("config.json"), json.dumps(CONFIG, indent=1) + "\n")


def _read(clip: Path, config: VocoderConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Read mel (n_mels, T), F0 (T,) and audio (hop_size * T,) of a prepared clip."""
    audio = torch.from_numpy(read_audio(clip)[0])
    f0 = torch.from_numpy(ClipFiles(clip).read_f0()[0])
    return config.mel(audio[None])[0], f0, audio[: len(f0) * config.hop_size]


def _crop(mel: Tensor, f0: Tensor, audio: Tensor, generator: np.random.Generator, hop: int) -> tuple[Tensor, ...]:
    start = int(generator.integers(len(f0) - CROP + 1))
    frames, samples = slice(start, start + CROP), slice(start * hop, (start + CROP) * hop)
    return mel[:, frames], f0[frames], audio[samples]


def spectral_loss(made: Tensor, real: Tensor) -> Tensor:
    """Average the absolute difference of the log magnitudes of two batches of audio (B, L) over RESOLUTIONS."""
    distances = []
    for window, step in RESOLUTIONS:
        made_log, real_log = (linear_spectrogram(a, window, step, window).clamp(min=1e-2).log() for a in (made, real))
        distances.append((made_log - real_log).abs().mean())
    return torch.stack(distances).mean()


def pitch_error(path: Path, tones: Sequence[float] = (147.0, 220.0, 294.0, 330.0)) -> float:
    """Return the largest pitch error, in cents, of the vocoder at ``path`` for harmonic tones (Hz) of one second.

    The pitch is the spectrum's peak within a semitone of the fundamental, to a fifth of a cent.
    """
    vocoder = load_mel_vocoder(path)
    rate = vocoder.sampling_rate
    time = torch.arange(rate) / rate
    errors = []
    for tone in tones:
        audio = sum(torch.sin(2 * torch.pi * tone * number * time) / number for number in range(1, 20)) / 4
        mel = vocoder.extract(audio[None])
        made = vocoder.synthesize(mel, torch.full(mel.shape[:2], tone))[0]
        power = torch.fft.rfft(made * torch.hann_window(len(made)), n=64 * rate).abs()
        cents = 1200 * torch.log2(torch.arange(len(power)) / 64 / tone)
        near = cents.abs() < 100
        errors.append(float(cents[near][power[near].argmax()].abs()))
    return max(errors)
