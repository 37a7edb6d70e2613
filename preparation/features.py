"""Content units, F0, spectrogram and volume of every clip, written beside it."""

from __future__ import annotations

import contextlib
import itertools
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modules.audio import open_audio, read_audio, resample, volume
from modules.clip_files import SHORTEST_CLIP, ClipFiles, find_clips, frames
from modules.config import Config
from modules.console import UserError, get_logger, progress
from modules.device import pick_device
from modules.f0 import F0_PREDICTORS, build_f0_predictor
from modules.spectrogram import linear_spectrogram
from preparation.batches import make_batches
from preparation.fingerprints import Check, Recipe, check, vouch, withdraw
from preparation.report import Report, list_some
from preparation.workers import cpu_count, run_job, worker_count
from vencoder import ENCODERS, build_encoder

log = get_logger("features")

F0_THRESHOLD = 0.05  # as published, for the predictors that have one
PRETRAIN = Path("pretrain")

Curve = tuple[np.ndarray, np.ndarray]  # F0 in Hz and voicing, (T,) each


def prepare_features(
    folder: str | Path,
    config: Config,
    f0_predictor: str,
    device: str | None = None,
    num_processes: int = 1,
    half: bool = False,
) -> Report:
    """Make the companions of every ``folder/<speaker>/*.wav`` that are missing, stale or of unknown origin.

    One bad clip does not stop the others: it is named in the report. ``num_processes`` 0 stands for one worker a CPU;
    ``half`` lets the encoder compute in half precision.
    Raises UserError before any work when there are no clips, or when an encoder, predictor or device cannot serve; and
    after it when not one clip could be made.
    """
    _refuse_misfits(config, f0_predictor, device)
    workers = worker_count(num_processes)
    clips = [clip for speaker in find_clips(folder).values() for clip in speaker]
    if not clips:
        raise UserError(f"{folder} holds no <speaker>/*.wav; 'python resample.py' makes them from dataset_raw")
    recipes = make_recipes(config, f0_predictor, half)
    report = Report()
    tasks = _plan(clips, recipes, report)
    needed = frozenset(name for task in tasks for name in task.found.stale)
    job = FeatureJob(config, f0_predictor, device, recipes, needed)
    if tasks:
        _run(job, tasks, workers, report)
    if not report.made and not report.ready:
        _refuse_nothing(folder, report)
    return report


def _refuse_misfits(config: Config, f0_predictor: str, device: str | None) -> None:
    F0_PREDICTORS[f0_predictor].find_weight(f0_predictor, PRETRAIN)  # refuses an unknown one, and one without its file
    key = config.model.speech_encoder
    if ENCODERS[key].ssl_dim != config.model.ssl_dim:
        raise UserError(
            f"the configuration's model.ssl_dim is {config.model.ssl_dim}, but its speech encoder '{key}' gives "
            f"{ENCODERS[key].ssl_dim} features; run 'python preprocess_flist_config.py --speech_encoder {key}'"
        )
    pick_device(device)


def _refuse_nothing(folder: str | Path, report: Report) -> None:
    if not report.failed:
        raise UserError(f"no clip in {folder} is {SHORTEST_CLIP} s or longer; record or slice longer ones")
    first, *others = report.failed.values()
    list_some("not made", others)
    raise UserError(f"no clip could be prepared: {first}")


def make_recipes(config: Config, f0_predictor: str, half: bool = False) -> dict[str, Recipe]:
    """What each companion is to be made with. Any difference from a clip's fingerprint makes that companion stale."""
    data, encoder, predictor = config.data, ENCODERS[config.model.speech_encoder], F0_PREDICTORS[f0_predictor]
    timing = {"sampling_rate": data.sampling_rate, "hop_length": data.hop_length}
    recipes = {
        "units": {"speech_encoder": config.model.speech_encoder, "weight_bytes": _size(encoder.weight)},
        "f0": {"f0_predictor": f0_predictor, "weight_bytes": _size(predictor.weight), **timing},
        "spec": {"filter_length": data.filter_length, "win_length": data.win_length, **timing},
    }
    if half:
        recipes["units"]["half"] = True
    if predictor.uses_threshold:
        recipes["f0"]["threshold"] = F0_THRESHOLD
    if config.model.vol_embedding:
        recipes["volume"] = timing
    return recipes


def _size(weight: str | None) -> int | None:
    return (PRETRAIN / weight).stat().st_size if weight and (PRETRAIN / weight).exists() else None


# -- which clips ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One clip of so many seconds, and what was found beside it."""

    files: ClipFiles
    found: Check
    seconds: float


def _plan(clips: Iterable[Path], recipes: dict[str, Recipe], report: Report) -> list[Task]:
    """The clips with work to do. Those that are ready, too short or unreadable go into the report."""
    tasks = []
    for clip in clips:
        files = ClipFiles(clip)
        try:
            found = check(files, recipes)
            if not found.stale:
                report.ready += 1
                continue
            with open_audio(clip) as sound:
                seconds = sound.frames / sound.samplerate
        except (UserError, OSError) as error:
            report.failed[clip] = _about(clip, error)
            continue
        if seconds < SHORTEST_CLIP:
            report.too_short.append(clip)
        else:
            tasks.append(Task(files, found, seconds))
    return tasks


def _about(clip: Path, error: Exception) -> str:
    """The error as a sentence that names the clip."""
    sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return sentence if str(clip) in sentence else f"{clip}: {sentence}"


def _run(job: FeatureJob, tasks: list[Task], workers: int, report: Report) -> None:
    """Do the tasks, one or more, and enter their results into the report."""
    results = _do(job, make_batches(tasks, pick_device(job.device).type, workers), workers)
    lost = {result.clip for result in results if result.lost}
    if lost:  # alone, the one that ended its worker takes no other with it
        alone = _do(job, [[task] for task in tasks if task.files.wav in lost], workers)
        results = [result for result in results if not result.lost] + alone
    for result in results:
        if result.error:
            report.failed[result.clip] = result.error
            continue
        report.made += 1
        report.reasons.update(result.reasons)
        report.audio_seconds += result.seconds
        report.load_seconds[result.rank] = result.load_seconds
    report.work_seconds = max(result.ended for result in results) - min(result.began for result in results)


def _do(job: FeatureJob, batches: list[list[Task]], workers: int) -> list[Result]:
    results = []
    with contextlib.closing(run_job(job, batches, workers)) as stream:
        first = next(stream)  # by now the models are loaded, or were refused
        with progress(total=sum(map(len, batches)), description="features", unit="clip") as bar:
            for some in itertools.chain([first], stream):
                results += some
                bar.update(len(some))
    return results


# -- one batch ---------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one task. ``error`` is a sentence that names the clip; ``lost`` says that a worker died over it and
    others; ``began`` and ``ended`` are clock times."""

    clip: Path
    error: str | None = None
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    rank: int = 0
    load_seconds: float = 0.0
    lost: bool = False


class FeatureJob:
    """Makes the stale companions of a batch of clips. Each worker builds the models once, and only those that some clip
    ``needed``."""

    def __init__(
        self, config: Config, f0_predictor: str, device: str | None, recipes: dict[str, Recipe], needed: frozenset[str]
    ):
        self.config = config
        self.f0_predictor = f0_predictor
        self.device = device
        self.recipes = recipes
        self.needed = needed

    def set_up(self, rank: int, workers: int) -> None:
        """Build the models, on CUDA devices in turn when no device was named. Raises UserError as they do."""
        if workers > 1:
            torch.set_num_threads(max(1, cpu_count() // workers))  # more threads than CPUs is slower by far
        began = time.time()
        device = self.device
        if device is None and torch.cuda.is_available():
            device = f"cuda:{rank % torch.cuda.device_count()}"
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
        """Run the models on a short tone, so that what they load at first use belongs to the loading too."""
        rate = self.config.data.sampling_rate
        tone = np.sin(np.arange(int(SHORTEST_CLIP * rate)) * (2 * np.pi * 220 / rate)).astype(np.float32)
        if "units" in self.needed:
            self.encoder(self._for_encoder(tone))
        if "f0" in self.needed:
            self.predictor(tone)

    def __call__(self, batch: list[Task]) -> list[Result]:
        began = time.time()
        units = self._together(batch, "units", self._encode)
        curves = self._together(batch, "f0", self._track)
        results = [self._result(task, units.get(task.files.wav), curves.get(task.files.wav)) for task in batch]
        results[0].began = began
        return results

    def _together(self, batch: list[Task], name: str, compute: Callable[[list[np.ndarray]], list]) -> dict[Path, Any]:
        """What ``compute`` makes of the clips that lack ``name``, by path. One that is missing here fails alone."""
        sounds = {}
        for task in batch:
            if name in task.found.stale:
                with contextlib.suppress(UserError, OSError):
                    sounds[task.files.wav] = self._read(task.files)
        if len(sounds) < 2:
            return {}
        try:
            return dict(zip(sounds, compute(list(sounds.values())), strict=True))
        except Exception:  # one of them is not usable, or the memory does not suffice for all
            log.debug("%s", traceback.format_exc())
            return {}

    def _encode(self, sounds: list[np.ndarray]) -> list[torch.Tensor]:
        return self.encoder.encode_batch([self._for_encoder(audio) for audio in sounds])

    def _track(self, sounds: list[np.ndarray]) -> list[Curve]:
        return self.predictor.together(sounds, [frames(len(audio), self.config.data.hop_length) for audio in sounds])

    def _result(self, task: Task, units: torch.Tensor | None, curve: Curve | None) -> Result:
        result = Result(task.files.wav, began=time.time(), rank=self.rank, load_seconds=self.load_seconds)
        try:
            result.seconds = self.make(task.files, task.found, units, curve)
            result.reasons = list(task.found.stale.values())
        except Exception as error:  # whatever one clip does, the others are made
            log.debug("%s", traceback.format_exc())
            result.error = _about(task.files.wav, error)
        result.ended = time.time()
        return result

    def lost(self, batch: list[Task], reason: str) -> list[Result]:
        now = time.time()
        company = len(batch) > 1
        return [
            Result(task.files.wav, f"{task.files.wav}: {reason}", began=now, ended=now, lost=company) for task in batch
        ]

    @torch.inference_mode()
    def make(
        self, files: ClipFiles, found: Check, units: torch.Tensor | None = None, curve: Curve | None = None
    ) -> float:
        """Make what is stale beside one clip, with ``units`` (1, C, N) and the F0 ``curve`` where they are known.

        Returns its seconds. Raises UserError when the sound is not usable.
        """
        data = self.config.data
        audio = self._read(files)
        length = frames(len(audio), data.hop_length)
        wave = torch.from_numpy(audio)
        withdraw(files, found)
        if "units" in found.stale:
            files.write_units(self.encoder(self._for_encoder(audio)) if units is None else units)
        if "f0" in found.stale:
            files.write_f0(*(curve or self.predictor(audio, length)))
        if "spec" in found.stale:
            files.write_spec(linear_spectrogram(wave[None], data.filter_length, data.hop_length, data.win_length)[0])
        if "volume" in found.stale:
            files.write_volume(volume(wave, data.hop_length))
        vouch(files, found, self.recipes)
        return len(audio) / data.sampling_rate

    def _read(self, files: ClipFiles) -> np.ndarray:
        audio, rate = read_audio(files.wav)
        wanted = self.config.data.sampling_rate
        if rate != wanted:
            raise UserError(f"{files.wav} has {rate} Hz, the configuration {wanted}; run resample.py again")
        return audio

    def _for_encoder(self, audio: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(resample(audio, self.config.data.sampling_rate, self.encoder.sampling_rate))
