"""Stage 1: convert recordings to mono 16-bit clips at the model's sampling rate, trimmed and at full scale."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modules.atomic_file import write_text
from modules.audio.files import resample, write_audio
from modules.audio.loudness import Levels
from modules.audio.mono_file import SAFE_PEAK, MonoFile
from modules.console import UserError, failure, option, progress
from modules.data.features import SHORTEST_CLIP
from modules.temporary_file import delete_unfinished
from preparation.clip_ledger import ClipLedger
from preparation.fingerprints import identify
from preparation.recordings import (
    Recording,
    find_recordings,
    first_few,
    no_recordings,
    refuse_names,
    refuse_overlapping_folders,
    speakers_without_clips,
)
from preparation.termination import unwind_on_signals
from preparation.workers import cpu_count, run_job, worker_count

TRIM_DB = 40  # below the loudest frame
TRIM_FRAMES = (2048, 512)  # samples: window and hop
FULL_SCALE = 32767 / 32768  # the largest 16-bit value
SETTINGS = ".resample.json"
CLIP_SUFFIX = ".wav"


@dataclass
class ResampleReport:
    """The result for a folder of recordings."""

    made: int = 0
    up_to_date: int = 0
    failed: list[str] = field(default_factory=list)  # a sentence for each recording
    cut_off: list[str] = field(default_factory=list)  # a sentence for each truncated recording
    passed_over: list[str] = field(default_factory=list)  # a sentence for each file that is not a recording
    speakers_without_clips: list[str] = field(default_factory=list)  # a sentence for each
    gone: list[Path] = field(default_factory=list)  # clips whose recording was deleted
    unknown: list[Path] = field(default_factory=list)  # clips added or edited by the user


def resample_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    sampling_rate: int,
    full_scale: bool = True,
    processes: int | None = None,
    prune: bool = False,
) -> ResampleReport:
    """Prepare ``in_dir/<speaker>/*`` as ``out_dir/<speaker>/<stem>.wav``.

    A clip that is newer than its recording and than the last change of the settings is skipped, so a stopped run
    continues. A recording that fails is reported and does not stop the others. ``prune`` deletes the clips made by this
    stage whose recordings were deleted, and their sidecar files. ``processes`` 0 means one per CPU, None
    ``default_processes``. Raises UserError if there are no recordings, if the clips would lie among the recordings, or
    if no recording can be prepared.
    """
    workers = default_processes() if processes is None else worker_count(processes)
    in_dir, out_dir = Path(in_dir), Path(out_dir)
    recordings, notes = find_recordings(in_dir)
    if not recordings:
        raise no_recordings(in_dir, notes)
    cure = f"name another folder for the clips with {option('out_dir')}"
    refuse_overlapping_folders(in_dir, recordings, out_dir, cure)
    fit, refused = refuse_names(recordings, CLIP_SUFFIX)
    for folder in {out_dir / recording.speaker for recording in fit} | {out_dir}:
        delete_unfinished(folder)
    report = ResampleReport(passed_over=notes, failed=list(refused.values()))
    job = ResampleJob(out_dir, sampling_rate, full_scale)
    changed = _save_settings(out_dir, {"sampling_rate": sampling_rate, "full_scale": full_scale})
    ledger = ClipLedger(in_dir, out_dir)
    waiting = [one for one in fit if not up_to_date(one.path, job.target(one), changed)]
    report.up_to_date = len(fit) - len(waiting)
    with unwind_on_signals(), contextlib.closing(run_job(job, waiting, workers)) as outcomes:
        for outcome in progress(outcomes, total=len(waiting), description="resampling", unit="clip"):
            if outcome.made:
                ledger.add(job.target(outcome.made.recording), outcome.made.recording.path, outcome.made.identity)
                report.made += 1
            report.failed += [outcome.failed] if outcome.failed else []
            report.cut_off += [outcome.cut_off] if outcome.cut_off else []
    if report.made + report.up_to_date == 0:
        raise UserError(f"none of {len(recordings)} recordings could be prepared: {first_few(report.failed)}")
    report.gone, report.unknown = ledger.without_recording({job.target(one): one.path for one in recordings})
    if prune:
        ledger.prune(report.gone)
    with_clips = {recording.speaker for recording in fit if job.target(recording).is_file()}
    report.speakers_without_clips = speakers_without_clips(in_dir, with_clips)
    return report


def default_processes() -> int:
    """Return the number of processes: 30 on large machines, else all processors but two, at least one."""
    processors = cpu_count()
    return 30 if processors > 60 else max(processors - 2, 1)


# -- one clip ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A clip that was made; ``identity`` is the result of ``identify``: size, modification time and hash."""

    recording: Recording
    identity: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The result for one recording: the clip, or why it failed; ``cut_off`` is a sentence if the file is truncated."""

    made: Made | None = None
    failed: str | None = None
    cut_off: str | None = None


@dataclass(frozen=True)
class ResampleJob:
    """Prepares one recording after the other."""

    out_dir: Path
    sampling_rate: int
    full_scale: bool

    def set_up(self, rank: int, workers: int) -> None:
        """Do nothing: there is nothing to load."""

    def __call__(self, recording: Recording) -> Outcome:
        try:
            cut_off = self.prepare(recording)
            return Outcome(Made(recording, identify(self.target(recording), {})), cut_off=cut_off)
        except Exception as error:  # a failure must not stop the other recordings
            return Outcome(failed=failure(recording.path, error))

    def worker_died(self, recording: Recording, reason: str) -> Outcome:
        return Outcome(failed=f"{recording.path}: {reason}")

    def target(self, recording: Recording) -> Path:
        return self.out_dir / recording.speaker / f"{recording.path.stem}{CLIP_SUFFIX}"

    def prepare(self, recording: Recording) -> str | None:
        """Read, trim, resample, scale and write one clip; returns a sentence if the recording is truncated.

        Raises UserError, which names the file, if it cannot be prepared.
        """
        sound = MonoFile(recording.path)
        levels, rate = sound.measure(*TRIM_FRAMES), sound.sampling_rate
        if sound.peak < 1 / 32768:
            raise UserError(f"{recording.path} holds only silence")
        audio = trim_silence(sound.read(), levels)
        if len(audio) < SHORTEST_CLIP * rate:
            seconds = len(audio) / rate
            raise UserError(f"{recording.path} holds {seconds:.2f} s of sound; a clip needs {SHORTEST_CLIP} s or more")
        audio = _limit_peak(resample(audio, rate, self.sampling_rate))  # the resampling filter overshoots
        if self.full_scale:
            audio = audio * (FULL_SCALE / np.abs(audio).max())
        write_audio(self.target(recording), audio, self.sampling_rate)
        return sound.cut_off


def trim_silence(audio: np.ndarray, levels: Levels, top_db: float = TRIM_DB) -> np.ndarray:
    """Cut from ``(L,)`` all before the first and after the last frame whose level is within ``top_db`` of the loudest.

    ``levels`` are measured in frames of TRIM_FRAMES.
    """
    hop, share = TRIM_FRAMES[1], 10 ** (-top_db / 20)
    rms = np.maximum(levels.curve(max(levels.rms.max(), 1e-5) * share), 1e-5)
    loud = np.flatnonzero(rms > rms.max() * share)
    return audio[loud[0] * hop : (loud[-1] + 1) * hop]


def _limit_peak(audio: np.ndarray) -> np.ndarray:
    peak = np.abs(audio).max()
    return audio * (SAFE_PEAK / peak) if peak > 1 else audio


# -- state of former runs --------------------------------------------------------------------------------------------


def _save_settings(out_dir: Path, settings: dict) -> int:
    """Save the settings beside the clips; returns the time of their last change in nanoseconds."""
    path, text = out_dir / SETTINGS, json.dumps(settings) + "\n"
    try:
        if not path.is_file() or path.read_bytes().decode("utf-8", "replace") != text:
            write_text(path, text)
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{out_dir} cannot be written to: {error.strerror}") from None


def up_to_date(source: Path, target: Path, settings_changed: int) -> bool:
    """Return whether the clip is newer than its recording and the settings.

    The recording's ctime counts too, because a copy may keep an old modification time.
    """
    if not target.is_file():
        return False
    status = source.stat()
    return target.stat().st_mtime_ns > max(status.st_mtime_ns, status.st_ctime_ns, settings_changed)
