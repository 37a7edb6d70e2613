"""The smallest working configuration, and a prepared data set of a few seconds."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from modules.audio.files import read_audio, write_audio
from modules.audio.loudness import volume
from modules.audio.spectrogram import VocoderMel, linear_spectrogram
from modules.config import Config, DiffusionConfig, save_config, save_diffusion_config
from modules.data.features import ClipFiles
from preparation.vocoder_mels import augment, plain_mel

RATE, HOP = 44100, 512
MEL = VocoderMel(n_mels=16)


def tiny_config(**train) -> Config:
    """A network of a few thousand weights on 8 features, for two speakers; ``train`` overrides training keys."""
    return Config.from_dict(
        {
            "train": {
                "segment_size": 8 * HOP,
                "batch_size": 2,
                "epochs": 4,
                "log_interval": 2,
                "eval_interval": 1000,
                "learning_rate": 1e-3,
                **train,
            },
            "model": {
                "inter_channels": 8,
                "hidden_channels": 8,
                "filter_channels": 16,
                "n_heads": 2,
                "n_layers": 1,
                "p_dropout": 0.1,
                "resblock": "2",
                "resblock_kernel_sizes": [3],
                "resblock_dilation_sizes": [[1, 3]],
                "upsample_rates": [32, 16],
                "upsample_kernel_sizes": [64, 32],
                "upsample_initial_channel": 16,
                "n_flow_layer": 1,
                "gin_channels": 4,
                "ssl_dim": 8,
                "n_speakers": 2,
                "speech_encoder": "mfcc",
                "discriminator_periods": [2, 3],
                "discriminator_width": 0.0625,
            },
            "data": {"unit_interpolate_mode": "nearest"},
            "spk": {"alto": 0, "tenor": 1},
        }
    )


def write_clip(path: Path, seconds: float, seed: int, features: int = 8) -> None:
    """A clip of a noisy tone with all the sidecar files that training reads."""
    for ending, content in _clip_files(seconds, seed, features).items():
        path.with_name(path.stem + ending).write_bytes(content)


@functools.cache
def _clip_files(seconds: float, seed: int, features: int) -> dict[str, bytes]:
    """Ending -> content of the files of a clip, made once for all data sets."""
    rng = np.random.default_rng(seed)
    length = int(seconds * RATE)
    frames = length // HOP
    hz = rng.uniform(150, 400)
    audio = 0.3 * np.sin(2 * np.pi * hz * np.arange(length) / RATE) + 0.02 * rng.standard_normal(length)
    audio = audio.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        write_audio(path, audio, RATE)
        files = ClipFiles(path)
        files.write_units(torch.from_numpy(rng.standard_normal((1, features, int(seconds * 50))).astype(np.float32)))
        files.write_f0(np.full(frames, hz, np.float32), np.ones(frames, np.float32))
        files.write_spec(linear_spectrogram(torch.from_numpy(audio)[None], 2048, HOP, 2048)[0])
        files.write_volume(volume(audio, HOP))
        return {file.name.removeprefix("clip"): file.read_bytes() for file in Path(folder).iterdir()}


def write_dataset(root: Path, config: Config, clips: int = 5) -> None:
    """A prepared data set below ``root``: clips of both speakers, filelists, ``configs/config.json``."""
    paths = []
    for speaker in config.spk:
        for index in range(clips):
            path = root / "dataset" / "44k" / speaker / f"{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, 0.4 + 0.1 * index, seed=len(paths))
            paths.append(path)
    (root / "filelists").mkdir()
    config.data.training_files = str(root / "filelists" / "train.txt")
    config.data.validation_files = str(root / "filelists" / "val.txt")
    Path(config.data.training_files).write_text("\n".join(map(str, paths[1:])), encoding="utf-8")
    Path(config.data.validation_files).write_text(str(paths[0]), encoding="utf-8")
    save_config(config, root / "configs" / "config.json")


# -- diffusion --------------------------------------------------------------------------------------------------------


def tiny_diffusion_config(**train) -> DiffusionConfig:
    """A denoiser of a few hundred weights for the same data; ``train`` overrides training keys."""
    return DiffusionConfig.from_dict(
        {
            "data": {
                "duration": 0.2,
                "encoder": "mfcc",
                "encoder_out_channels": 8,
                "unit_interpolate_mode": "nearest",
            },
            "model": {"n_layers": 2, "n_chans": 8, "n_hidden": 8, "timesteps": 20, "n_spk": 2},
            "device": "cpu",
            "train": {"batch_size": 2, "epochs": 4, "num_workers": 0, "interval_log": 1, "lr": 1e-3, **train},
            "spk": {"alto": 0, "tenor": 1},
        }
    )


def write_diffusion_dataset(root: Path, config: DiffusionConfig, clips: int = 5) -> None:
    """Write a data set as write_dataset does, and the sidecar files for diffusion (mels of 16 bins) and its YAML."""
    of_synthesizer = tiny_config()
    write_dataset(root, of_synthesizer, clips)
    config.data.training_files = of_synthesizer.data.training_files
    config.data.validation_files = of_synthesizer.data.validation_files
    for path in (root / "dataset" / "44k").glob("*/*.wav"):
        write_mels(path)
    save_diffusion_config(config, root / "configs" / "diffusion.yaml")


def write_mels(path: Path, mel: VocoderMel = MEL) -> None:
    """The mels of a clip, plain and augmented."""
    for ending, content in _mel_files(path.read_bytes(), mel, int(path.stem)).items():
        path.with_name(path.stem + ending).write_bytes(content)


@functools.cache
def _mel_files(clip: bytes, mel: VocoderMel, seed: int) -> dict[str, bytes]:
    """Ending -> content of the files that ``write_mels`` writes, made once for all data sets."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        path.write_bytes(clip)
        audio = torch.from_numpy(read_audio(path)[0])
        ClipFiles(path).write_mel(plain_mel(audio, mel))
        ClipFiles(path).write_augmented(augment(audio, mel, seed=seed))
        return {file.name.removeprefix("clip"): file.read_bytes() for file in Path(folder).iterdir() if file != path}
