"""Content units, F0, spectrogram and what else training reads of every clip, written beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import torch

from modules.audio.files import open_audio
from modules.audio.spectrogram import VocoderMel
from modules.config import Config
from modules.console import UserError, get_logger, progress
from modules.data.features import SHORTEST_CLIP, ClipFiles, clip_flaw, find_clips
from modules.data.file_name import speaker_flaw
from modules.device import pick_device
from modules.f0 import F0_PREDICTORS
from modules.temporary_file import delete_unfinished
from modules.training import distributed
from preparation.feature_job import F0_THRESHOLD, PRETRAIN, FeatureJob, Result, Task, about
from preparation.fingerprints import Recipe, check, vouch
from preparation.fitting import Fit
from preparation.report import Report, list_some
from preparation.termination import unwinding
from preparation.vocoder_mels import FARTHEST_SHIFT
from preparation.workers import run_job, worker_count
from vencoder import ENCODERS

log = get_logger("features")


def default_predictor() -> str:
    """Return the F0 predictor to use when none is named: rmvpe, or fcpe and a log line if rmvpe's file is missing."""
    path = PRETRAIN / F0_PREDICTORS["rmvpe"].weight
    if path.is_file():
        return "rmvpe"
    log.info("%s is missing, so fcpe measures F0, which needs no file (pretrain/README.md describes both)", path)
    return "fcpe"


def prepare_features(
    folder: str | Path,
    config: Config,
    f0_predictor: str,
    device: str | None = None,
    num_processes: int = 1,
    half: bool = False,
    mel: VocoderMel | None = None,
    remake: bool = False,
) -> Report:
    """Make the companions of every ``folder/<speaker>/*.wav`` that are missing or stale.

    Those of another origin, and those edited since, are kept where they fit the clip. ``remake`` makes all anew.
    One bad clip does not stop the others: it is named in the report. ``num_processes`` 0 stands for one worker a CPU;
    ``half`` lets the encoder compute in half precision; ``mel``, the vocoder's, is given when the companions of
    diffusion are wanted too. Of several processes, as torchrun or a scheduler starts them, each takes its share of the
    clips; where they can meet, all wait for the last of them and have the report of all.
    Raises UserError before any work when there are no clips, or when an encoder, predictor or device cannot serve; and
    after it when not one clip could be made.
    """
    _refuse_misfits(config, f0_predictor, device)
    workers = worker_count(num_processes)
    speakers = find_clips(folder)
    for name in speakers:
        delete_unfinished(Path(folder) / name)
    clips = [clip for speaker in speakers.values() for clip in speaker]
    if not clips:
        raise UserError(f"{folder} holds no <speaker>/*.wav; 'python resample.py' makes them from dataset_raw")
    own, recipes, report = _own_share(clips), make_recipes(config, f0_predictor, half, mel), Report()
    with distributed.process_group(torch.device("cpu")) if distributed.has_rendezvous() else contextlib.nullcontext():
        tasks = _plan(own, recipes, report, Fit.of(config, mel), remake)
        needed = frozenset(name for task in tasks for name in task.found.stale)
        job = FeatureJob(config, f0_predictor, device, recipes, needed, mel)
        if tasks:
            _run(job, tasks, workers, report)
        report = Report.of_all(distributed.all_gather(report))
    if own and not report.made and not report.ready:
        _refuse_nothing(folder, report)
    return report


def _own_share(clips: list[Path]) -> list[Path]:
    own, rank, world_size = distributed.own_share(clips), distributed.launch_rank(), distributed.launch_world_size()
    if world_size > 1:
        log.info("process %d of %d takes %d of the %d clips", rank + 1, world_size, len(own), len(clips))
    return own


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


def make_recipes(
    config: Config, f0_predictor: str, half: bool = False, mel: VocoderMel | None = None
) -> dict[str, Recipe]:
    """What each companion is to be made with. Any difference from a clip's fingerprint makes that companion stale."""
    data, encoder, predictor = config.data, ENCODERS[config.model.speech_encoder], F0_PREDICTORS[f0_predictor]
    encoder_bytes = _size(encoder.weight, *encoder.others)
    timing = {"sampling_rate": data.sampling_rate, "hop_length": data.hop_length}
    recipes = {
        "units": {"speech_encoder": config.model.speech_encoder, "weight_bytes": encoder_bytes},
        "f0": {"f0_predictor": f0_predictor, "weight_bytes": _size(predictor.weight), **timing},
        "spec": {"filter_length": data.filter_length, "win_length": data.win_length, **timing},
    }
    if half:
        recipes["units"]["half"] = True
    if predictor.uses_threshold:
        recipes["f0"]["threshold"] = F0_THRESHOLD
    if config.model.vol_embedding or mel:
        recipes["volume"] = timing
    if mel:
        recipes["mel"] = dataclasses.asdict(mel)
        recipes["augmented"] = {**recipes["mel"], "farthest_shift": FARTHEST_SHIFT, "layout": "published"}
    return recipes


def _size(*names: str | None) -> int | None:
    """The bytes of the first of these weight files that is there."""
    there = (PRETRAIN / name for name in names if name and (PRETRAIN / name).is_file())
    return next((path.stat().st_size for path in there), None)


# -- which clips ------------------------------------------------------------------------------------------------------


def _plan(clips: Iterable[Path], recipes: dict[str, Recipe], report: Report, fit: Fit, remake: bool) -> list[Task]:
    """The clips with work to do. Those that are ready, too short or unreadable go into the report."""
    tasks = []
    for clip in clips:
        files = ClipFiles(clip)
        if flaw := speaker_flaw(clip.parent.name) or clip_flaw(clip.name):
            report.failed[clip] = f"{clip} {flaw}"
            continue
        try:
            found = check(files, recipes, fit, remake)
            report.kept.update(found.kept)
            if not found.stale:
                if found.adopted:
                    vouch(files, found, recipes)
                report.ready += 1
                continue
            with open_audio(clip) as sound:
                seconds = sound.frames / sound.samplerate
        except (UserError, OSError) as error:
            report.failed[clip] = about(clip, error)
            continue
        if seconds < SHORTEST_CLIP:
            report.too_short.append(clip)
        else:
            tasks.append(Task(files, found, seconds))
    return tasks


def _run(job: FeatureJob, tasks: list[Task], workers: int, report: Report) -> None:
    """Do the tasks, one or more, and enter their results into the report."""
    results = _do(job, sorted(tasks, key=lambda task: -task.seconds), workers)  # so that workers end together
    for result in results:
        if result.error:
            report.failed[result.clip] = result.error
            continue
        report.made += 1
        report.reasons.update(result.reasons)
        report.audio_seconds += result.seconds
        report.load_seconds[result.rank] = result.load_seconds
    report.work_seconds = max(result.ended for result in results) - min(result.began for result in results)


def _do(job: FeatureJob, tasks: list[Task], workers: int) -> list[Result]:
    results = []
    with unwinding(), contextlib.closing(run_job(job, tasks, workers)) as stream:
        first = next(stream)  # by now the models are loaded, or were refused
        with progress(total=len(tasks), description="features", unit="clip") as bar:
            for result in itertools.chain([first], stream):
                results.append(result)
                bar.update()
    return results
