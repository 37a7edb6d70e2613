"""Stage 3: write each clip's sidecar files (content units, F0, spectrogram, …), which training reads."""

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
from preparation.feature_job import F0_THRESHOLD, PRETRAIN, FeatureJob, Result, Task, error_sentence
from preparation.fingerprints import Recipe, check, write_fingerprint
from preparation.report import Report, warn_of_each
from preparation.sidecar_format import SidecarFormat
from preparation.termination import unwind_on_signals
from preparation.vocoder_mels import MAX_SHIFT
from preparation.workers import run_job, worker_count
from vencoder import ENCODERS

log = get_logger("features")


def default_predictor() -> str:
    """Return the default F0 predictor: rmvpe, or fcpe (with a log line) if rmvpe's file is missing."""
    path = PRETRAIN / F0_PREDICTORS["rmvpe"].weight
    if path.is_file():
        return "rmvpe"
    command = "python download_pretrain.py --f0 rmvpe"
    log.info("%s is missing, so fcpe measures F0, which needs no file ('%s' fetches the other)", path, command)
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
    """Make the missing and stale sidecar files of every ``folder/<speaker>/*.wav``.

    Files of another origin and edited files are kept if they match the clip; ``remake`` makes all anew. A clip that
    fails is named in the report and does not stop the others. ``num_processes`` 0 means one worker per CPU; ``half``
    runs the encoder in half precision; ``mel``, the vocoder's spectrogram, is given to make the files for diffusion
    too. If torchrun or a scheduler starts several processes, each takes its share of the clips; processes that can
    form a process group wait for each other, and their reports are merged.
    Raises UserError before any work if there are no clips, or if the encoder, predictor or device cannot be used, and
    after the work if no clip could be prepared.
    """
    _refuse_bad_settings(config, f0_predictor, device)
    workers = worker_count(num_processes)
    speakers = find_clips(folder)
    for name in speakers:
        delete_unfinished(Path(folder) / name)
    clips = [clip for speaker in speakers.values() for clip in speaker]
    if not clips:
        raise UserError(f"{folder} holds no <speaker>/*.wav; 'python resample.py' makes them from dataset_raw")
    own, recipes, report = _own_share(clips), make_recipes(config, f0_predictor, half, mel), Report()
    with distributed.process_group(torch.device("cpu")) if distributed.has_rendezvous() else contextlib.nullcontext():
        tasks = _plan(own, recipes, report, SidecarFormat.of(config, mel), remake)
        needed = frozenset(name for task in tasks for name in task.found.stale)
        job = FeatureJob(config, f0_predictor, device, recipes, needed, mel)
        if tasks:
            _run(job, tasks, workers, report)
        report = Report.merged(distributed.all_gather(report))
    if own and not report.made and not report.ready:
        _refuse_empty_result(folder, report)
    return report


def _own_share(clips: list[Path]) -> list[Path]:
    own, rank, world_size = distributed.own_share(clips), distributed.launch_rank(), distributed.launch_world_size()
    if world_size > 1:
        log.info("process %d of %d takes %d of the %d clips", rank + 1, world_size, len(own), len(clips))
    return own


def _refuse_bad_settings(config: Config, f0_predictor: str, device: str | None) -> None:
    F0_PREDICTORS[f0_predictor].find_weight(f0_predictor, PRETRAIN)  # raises if it is unknown or lacks its file
    key = config.model.speech_encoder
    if ENCODERS[key].ssl_dim != config.model.ssl_dim:
        raise UserError(
            f"the configuration's model.ssl_dim is {config.model.ssl_dim}, but its speech encoder '{key}' gives "
            f"{ENCODERS[key].ssl_dim} features; run 'python preprocess_flist_config.py --speech_encoder {key}'"
        )
    pick_device(device)


def _refuse_empty_result(folder: str | Path, report: Report) -> None:
    if not report.failed:
        raise UserError(f"no clip in {folder} is {SHORTEST_CLIP} s or longer; record or slice longer ones")
    first, *others = report.failed.values()
    warn_of_each("not made", others)
    raise UserError(f"no clip could be prepared: {first}")


def make_recipes(
    config: Config, f0_predictor: str, half: bool = False, mel: VocoderMel | None = None
) -> dict[str, Recipe]:
    """Return the recipe of each kind of sidecar file. A file whose fingerprint has another recipe is stale."""
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
        recipes["augmented"] = {**recipes["mel"], "farthest_shift": MAX_SHIFT, "layout": "published"}
    return recipes


def _size(*names: str | None) -> int | None:
    """Return the size in bytes of the first of these weight files that exists; None if there is none."""
    there = (PRETRAIN / name for name in names if name and (PRETRAIN / name).is_file())
    return next((path.stat().st_size for path in there), None)


# -- select the clips -------------------------------------------------------------------------------------------------


def _plan(
    clips: Iterable[Path], recipes: dict[str, Recipe], report: Report, wanted: SidecarFormat, remake: bool
) -> list[Task]:
    """Return the clips with work to do; enter those that are ready, too short or unreadable into the report."""
    tasks = []
    for clip in clips:
        files = ClipFiles(clip)
        if flaw := speaker_flaw(clip.parent.name) or clip_flaw(clip.name):
            report.failed[clip] = f"{clip} {flaw}"
            continue
        try:
            found = check(files, recipes, wanted.matches, remake)
            report.kept.update(found.kept)
            if not found.stale:
                if found.newly_kept:
                    write_fingerprint(files, found, recipes)
                report.ready += 1
                continue
            with open_audio(clip) as sound:
                seconds = sound.frames / sound.samplerate
        except (UserError, OSError) as error:
            report.failed[clip] = error_sentence(clip, error)
            continue
        if seconds < SHORTEST_CLIP:
            report.too_short.append(clip)
        else:
            tasks.append(Task(files, found, seconds))
    return tasks


def _run(job: FeatureJob, tasks: list[Task], workers: int, report: Report) -> None:
    """Run the tasks, at least one, and enter their results into the report."""
    longest_first = sorted(tasks, key=lambda task: -task.seconds)  # so that the workers finish together
    results = _do(job, longest_first, workers)
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
    with unwind_on_signals(), contextlib.closing(run_job(job, tasks, workers)) as stream:
        first = next(stream)  # after this the models are loaded
        with progress(total=len(tasks), description="features", unit="clip") as bar:
            for result in itertools.chain([first], stream):
                results.append(result)
                bar.update()
    return results
