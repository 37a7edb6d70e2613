"""The job of one worker: load the models once, then make the sidecar files of one clip after the other."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from modules.audio.files import read_audio, resample
from modules.audio.loudness import volume
from modules.audio.spectrogram import VocoderMel, linear_spectrogram
from modules.config import Config
from modules.console import UserError, explain, get_logger
from modules.data.features import SHORTEST_CLIP, ClipFiles, frames
from modules.device import pick_device
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.training.distributed import local_rank
from preparation.fingerprints import Check, Recipe, invalidate, write_fingerprint
from preparation.vocoder_mels import augment, plain_mel
from preparation.workers import cpu_count
from vencoder import build_encoder

log = get_logger("features")

F0_THRESHOLD = 0.05  # the published value, for predictors with a threshold
PRETRAIN = Path("pretrain")


@dataclass(frozen=True)
class Task:
    """A clip, the state of its sidecar files, and its length in seconds."""

    files: ClipFiles
    found: Check
    seconds: float


@dataclass
class Result:
    """The result of one task. ``error`` is a sentence that names the clip; ``began`` and ``ended`` are clock times."""

    clip: Path
    error: str | None = None
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    rank: int = 0
    load_seconds: float = 0.0


def error_sentence(clip: Path, error: Exception) -> str:
    """Return the error as a sentence that names the clip."""
    sentence = explain(error) or f"{type(error).__name__}: {error}"
    return sentence if str(clip) in sentence else f"{clip}: {sentence}"


class FeatureJob:
    """Makes the stale sidecar files of a clip. Each worker builds once the models that some clip needs.

    ``needed`` are the kinds of sidecar files that some clip lacks; ``mel`` is given if those for diffusion are made.
    """

    def __init__(
        self,
        config: Config,
        f0_predictor: str,
        device: str | None,
        recipes: Mapping[str, Recipe],
        needed: frozenset[str],
        mel: VocoderMel | None = None,
    ):
        self.config = config
        self.f0_predictor = f0_predictor
        self.device = device
        self.recipes = recipes
        self.needed = needed
        self.mel = mel

    def set_up(self, rank: int, workers: int) -> None:
        """Build the models; without a given device, workers take the CUDA devices in turn. May raise UserError."""
        if workers > 1:
            torch.set_num_threads(max(1, cpu_count() // workers))  # more threads than CPUs are much slower
        began = time.time()
        device = self.device
        if device is None and torch.cuda.is_available():
            device = f"cuda:{(local_rank() * workers + rank) % torch.cuda.device_count()}"
        device = str(pick_device(device))
        if "units" in self.needed:
            half = self.recipes["units"].get("half", False)
            self.encoder = build_encoder(self.config.model.speech_encoder, device, PRETRAIN, half)
        if "f0" in self.needed:
            data, where = self.config.data, device if F0_PREDICTORS[self.f0_predictor].neural else "cpu"
            self.predictor = build_f0_predictor(
                self.f0_predictor, data.sampling_rate, data.hop_length, where, F0_THRESHOLD, PRETRAIN
            )
        self._warm_up()
        self.rank, self.load_seconds = rank, time.time() - began

    def _warm_up(self) -> None:
        """Run the models on a short tone, so that lazy initialisation counts as loading time."""
        rate = self.config.data.sampling_rate
        tone = np.sin(np.arange(int(SHORTEST_CLIP * rate)) * (2 * np.pi * 220 / rate)).astype(np.float32)
        if "units" in self.needed:
            self.encoder(self._for_encoder(tone))
        if "f0" in self.needed:
            self.predictor(tone)

    def __call__(self, task: Task) -> Result:
        result = Result(task.files.wav, began=time.time(), rank=self.rank, load_seconds=self.load_seconds)
        try:
            result.seconds = self.make(task.files, task.found)
            result.reasons = task.found.reasons
        except Exception as error:  # a failure must not stop the other clips
            log.debug("%s", traceback.format_exc())
            result.error = error_sentence(task.files.wav, error)
        result.ended = time.time()
        return result

    def worker_died(self, task: Task, reason: str) -> Result:
        now = time.time()
        return Result(task.files.wav, f"{task.files.wav}: {reason}", began=now, ended=now)

    @torch.inference_mode()
    def make(self, files: ClipFiles, found: Check) -> float:
        """Make a clip's stale sidecar files; returns its length in seconds. Raises UserError for unusable sound."""
        data, stale = self.config.data, found.stale
        audio = self._read(files)
        wave = torch.from_numpy(audio)
        invalidate(files, found)
        if "units" in stale:
            files.write_units(self.encoder(self._for_encoder(audio)))
        if "f0" in stale:
            files.write_f0(*self.predictor(audio, frames(len(audio), data.hop_length)))
        if "spec" in stale:
            files.write_spec(linear_spectrogram(wave[None], data.filter_length, data.hop_length, data.win_length)[0])
        if "volume" in stale:
            files.write_volume(volume(wave, data.hop_length))
        if "mel" in stale:
            files.write_mel(plain_mel(wave, self.mel))
        if "augmented" in stale:  # seeded by the clip's hash, so that every run writes the same bytes
            files.write_augmented(augment(wave, self.mel, seed=int(found.clip["blake2b"], 16)))
        write_fingerprint(files, found, self.recipes)
        return len(audio) / data.sampling_rate

    def _read(self, files: ClipFiles) -> np.ndarray:
        audio, rate = read_audio(files.wav)
        wanted = self.config.data.sampling_rate
        if rate != wanted:
            raise UserError(f"{files.wav} has {rate} Hz, the configuration {wanted}; run resample.py again")
        return audio

    def _for_encoder(self, audio: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(resample(audio, self.config.data.sampling_rate, self.encoder.sampling_rate))
