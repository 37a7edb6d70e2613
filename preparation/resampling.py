"""Stage 1: recordings of any kind become mono 16-bit clips at the models' rate, trimmed and at full scale."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modules.atomic_file import write_text
from modules.audio import frame_rms, read_audio, resample, write_audio
from modules.console import UserError, progress
from preparation.recordings import find_recordings

TRIM_DB = 40  # below the loudest frame
FULL_SCALE = 32767 / 32768  # the largest 16-bit value
SAFE_PEAK = 0.98
SETTINGS = ".resample.json"


@dataclass
class Report:
    """What became of a folder's recordings."""

    made: int = 0
    up_to_date: int = 0
    failed: list[str] = field(default_factory=list)  # a sentence for each clip
    passed_over: list[str] = field(default_factory=list)  # a sentence for each file that is no clip


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path
    sampling_rate: int
    full_scale: bool


def resample_folder(
    in_dir: str | Path, out_dir: str | Path, sampling_rate: int, full_scale: bool = True, processes: int | None = None
) -> Report:
    """Prepare ``in_dir/<speaker>/*`` as ``out_dir/<speaker>/<stem>.wav``.

    A clip that is newer than its recording, and than the last change of the settings, is left as it is, so a run that
    was stopped continues. A clip that fails is reported and does not stop the others. Raises UserError when there is
    nothing to prepare, or when no clip at all could be.
    """
    in_dir, out_dir = Path(in_dir), Path(out_dir)
    if out_dir.resolve() == in_dir.resolve():
        raise UserError(f"--in_dir and --out_dir2 are the same folder, {in_dir}; the recordings would be overwritten")
    recordings, notes = find_recordings(in_dir)
    if not recordings:
        raise UserError(f"{in_dir} holds no recordings; put them into {in_dir / '<speaker>'}, a folder for each voice")
    report = Report(passed_over=notes)
    changed = _note_settings(out_dir, {"sampling_rate": sampling_rate, "full_scale": full_scale})
    jobs: dict[Path, Job] = {}
    for recording in recordings:
        target = out_dir / recording.speaker / f"{recording.path.stem}.wav"
        if target in jobs:
            report.failed.append(f"{recording.path}: {jobs[target].source.name} has the same name; rename one of them")
        else:
            jobs[target] = Job(recording.path, target, sampling_rate, full_scale)
    waiting = [job for job in jobs.values() if not _up_to_date(job, changed)]
    report.up_to_date = len(jobs) - len(waiting)
    for failure in progress(_run(waiting, processes), total=len(waiting), description="resampling", unit="clip"):
        report.made += failure is None
        report.failed += [failure] if failure else []
    if report.made + report.up_to_date == 0:
        raise UserError(f"none of {len(recordings)} recordings could be prepared; the first: {report.failed[0]}")
    return report


def default_processes() -> int:
    """30 on large machines, else all processors but two, at least one."""
    processors = os.cpu_count() or 1
    return 30 if processors > 60 else max(processors - 2, 1)


# -- one clip ---------------------------------------------------------------------------------------------------------


def prepare_clip(job: Job) -> None:
    """Read, trim, resample, scale and write one clip. Raises UserError naming the file that cannot be prepared."""
    audio, rate = read_audio(job.source)
    if np.abs(audio).max() < 1 / 32768:
        raise UserError(f"{job.source} holds only silence")
    audio = _peak_safe(trim_silence(audio))
    audio = _peak_safe(resample(audio, rate, job.sampling_rate))  # filters overshoot
    if job.full_scale:
        audio = audio * (FULL_SCALE / np.abs(audio).max())
    write_audio(job.target, audio, job.sampling_rate)


def trim_silence(audio: np.ndarray, top_db: float = TRIM_DB) -> np.ndarray:
    """``(L,)`` without what lies before the first and behind the last frame within ``top_db`` of the loudest."""
    hop = 512
    rms = np.maximum(frame_rms(audio, 2048, hop), 1e-5)
    loud = np.flatnonzero(rms > rms.max() * 10 ** (-top_db / 20))
    return audio[loud[0] * hop : (loud[-1] + 1) * hop]


def _peak_safe(audio: np.ndarray) -> np.ndarray:
    peak = np.abs(audio).max()
    return audio * (SAFE_PEAK / peak) if peak > 1 else audio


# -- many clips -------------------------------------------------------------------------------------------------------


def _run(jobs: list[Job], processes: int | None) -> Iterator[str | None]:
    """For each job, as they end, None or the sentence that says what went wrong."""
    workers = min(processes or default_processes(), len(jobs))
    if workers <= 1:
        yield from map(_attempt, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = {pool.submit(_attempt, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                error = future.exception()  # of the pool itself: a worker that was killed
                yield f"{futures[future].source}: {error}" if error else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _attempt(job: Job) -> str | None:
    try:
        prepare_clip(job)
    except UserError as error:
        return str(error)
    except Exception as error:  # one clip must not stop the others; its name and the error are reported
        return f"{job.source}: {type(error).__name__}: {error}"
    return None


def _note_settings(out_dir: Path, settings: dict) -> int:
    """Keep the settings beside the clips; returns when they last changed (nanoseconds)."""
    path, text = out_dir / SETTINGS, json.dumps(settings) + "\n"
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{out_dir} cannot be written to: {error.strerror}") from None


def _up_to_date(job: Job, settings_changed: int) -> bool:
    """Made since its recording came here (a copy may keep an old date of change, its ctime is new) and was set up."""
    if not job.target.is_file():
        return False
    source = job.source.stat()
    return job.target.stat().st_mtime_ns > max(source.st_mtime_ns, source.st_ctime_ns, settings_changed)
