"""Adapters for the signal fixtures: spectrograms (C_), loudness, slicing and resampling (D_)."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from modules.audio.files import read_audio, sinc_resample
from modules.audio.loudness import match_envelope, volume
from modules.audio.slicer import Slicer
from modules.audio.spectrogram import VocoderMel, linear_spectrogram, mel_from_linear, mel_spectrogram
from modules.data.features import stretch_units

Arrays = dict[str, np.ndarray]


def mel_processing(ins: Arrays, meta: dict) -> dict:
    size = meta["constructor"]
    audio = torch.from_numpy(ins["y"])
    stft = (size["n_fft"], size["hop_size"], size["win_size"])
    spec = linear_spectrogram(audio, *stft)
    rate, bands = size["sampling_rate"], (size["fmin"], size["fmax"])
    return {
        "spec": spec,
        "mel_of_spec": mel_from_linear(spec, rate, size["n_fft"], size["num_mels"], *bands),
        "mel": mel_spectrogram(audio, rate, size["n_fft"], size["num_mels"], *stft[1:], *bands),
    }


def nvstft(ins: Arrays, meta: dict) -> dict:
    size = meta["constructor"]
    mel = VocoderMel(
        sampling_rate=size["sr"],
        n_mels=size["n_mels"],
        n_fft=size["n_fft"],
        win_length=size["win_size"],
        hop_length=size["hop_length"],
        fmin=size["fmin"],
        fmax=size["fmax"],
    )
    outputs = {}
    for name in _outputs(meta):
        key = float(re.search(r"key(-?[\d.]+)", name)[1])
        speed = re.search(r"speed([\d.]+)", name)
        audio = torch.from_numpy(ins["y_short" if "short" in name else "y"])
        outputs[name] = mel(audio, key, float(speed[1]) if speed else 1)
    return outputs


def change_rms(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for name in _outputs(meta):
        rate, source_rate = re.fullmatch(r"rate_([\d.]+)(?:_sr1_(\d+))?", name).groups()
        source = ins[f"data1_{source_rate}" if source_rate else "data1"]
        output = torch.from_numpy(ins["data2"])
        outputs[name] = match_envelope(source, int(source_rate or 44100), output, 44100, float(rate))
    return outputs


def repeat_expand_2d(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for name in _outputs(meta):
        mode, case = name.rsplit("_", 1)
        outputs[name] = stretch_units(torch.from_numpy(ins[f"content_{case}"]), int(ins[f"target_{case}"]), mode)
    return outputs


def resample(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for name in _outputs(meta):
        source, target, width = map(int, re.fullmatch(r"(\d+)_(\d+)_width(\d+)", name).groups())
        outputs[name] = sinc_resample(torch.from_numpy(ins[f"wav_{source}"])[None], source, target, width)[0]
    return outputs


def slicer(ins: Arrays, meta: dict) -> dict:
    rate, samples = 16000, ins["wav_int16"]
    recordings = {"": _as_read(samples, rate), "stereo_": _as_read(np.stack((samples, samples[::-1]), 1), rate)}
    variants = {
        "slicer_a": Slicer(rate, -40, min_interval=200, hop_size=10, max_sil_kept=500),
        "slicer_b": Slicer(rate, -40, max_sil_kept=200, min_length=1000),
    }
    outputs = {}
    for name in _outputs(meta):
        if name in variants:
            outputs[name] = _table(variants[name].slice(recordings[""]))
            continue
        kind, stereo, threshold, length = re.fullmatch(r"(chunks|audio)_(stereo_)?(-?\d+)_(\d+)", name).groups()
        audio = recordings[stereo or ""]
        chunks = Slicer(rate, float(threshold), float(length)).slice(audio)
        if kind == "chunks":
            outputs[name] = _table(chunks)
        else:
            parts = [(chunk.is_silence, audio[chunk.start : chunk.end]) for chunk in chunks if chunk.end > chunk.start]
            outputs[name] = np.array([[silent, len(part), np.abs(part).sum()] for silent, part in parts], np.float32)
    return outputs


def volume_extractor(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for name in _outputs(meta):
        hop = re.search(r"hop(\d+)_", name)
        audio = ins[f"wav_{name.rsplit('_', 1)[1]}"]
        outputs[name] = volume(audio if "numpy" in name else torch.from_numpy(audio), int(hop[1]) if hop else 512)
    return outputs


def _outputs(meta: dict) -> list[str]:
    return [name.removeprefix("out_") for name in meta["arrays"] if name.startswith("out_")]


def _as_read(samples: np.ndarray, rate: int) -> np.ndarray:
    """What read_audio makes of a 16-bit file with these samples."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        soundfile.write(path, samples, rate, subtype="PCM_16")
        return read_audio(path)[0]


def _table(chunks: list) -> np.ndarray:
    return np.array([[chunk.is_silence, chunk.start, chunk.end] for chunk in chunks], np.int64)


ADAPTERS = {
    "C_mel_processing": mel_processing,
    "C_nvstft": nvstft,
    "D_change_rms": change_rms,
    "D_repeat_expand_2d": repeat_expand_2d,
    "D_resample": resample,
    "D_slicer": slicer,
    "D_volume": volume_extractor,
}
