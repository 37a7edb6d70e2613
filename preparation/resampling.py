"""Stage 1: recordings of any kind become mono 16-bit clips at the models' rate, trimmed and at full scale."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modules.atomic_file import write_text
from modules.audio import resample, write_audio
from modules.clip_files import SHORTEST_CLIP
from modules.console import UserError, failure, progress
from modules.loudness import Levels
from modules.mono_file import SAFE_PEAK, MonoFile
from modules.temporary_file import delete_unfinished
from preparation.recordings import Recording, find_recordings, no_recordings, voiceless
from preparation.termination import unwinding
from preparation.workers import cpu_count, run_job, worker_count

TRIM_DB = 40  # below the loudest frame
TRIM_FRAMES = (2048, 512)  # samples: window and hop
FULL_SCALE = 32767 / 32768  # the largest 16-bit value
SETTINGS = ".resample.json"


@dataclass
class ResampleReport:
    """What became of a folder's recordings."""

    made: int = 0
    up_to_date: int = 0
    failed: list[str] = field(default_factory=list)  # a sentence for each clip
    cut_off: list[str] = field(default_factory=list)  # a sentence for each recording whose end is missing
    passed_over: list[str] = field(default_factory=list)  # a sentence for each file that is no clip
    voiceless: list[str] = field(default_factory=list)  # a sentence for each speaker without clips


def resample_folder(
    in_dir: str | Path, out_dir: str | Path, sampling_rate: int, full_scale: bool = True, processes: int | None = None
) -> ResampleReport:
    """Prepare ``in_dir/<speaker>/*`` as ``out_dir/<speaker>/<stem>.wav``.

    A clip that is newer than its recording, and than the last change of the settings, is left as it is, so a run that
    was stopped continues. A clip that fails is reported and does not stop the others. ``processes`` 0 stands for one a
    CPU, None for ``default_processes``. Raises UserError when there is nothing to prepare, or when no clip at all could
    be.
    """
    workers = default_processes() if processes is None else worker_count(processes)
    in_dir, out_dir = Path(in_dir), Path(out_dir)
    if out_dir.resolve() == in_dir.resolve():
        raise UserError(f"--in_dir and --out_dir2 are the same folder, {in_dir}; the recordings would be overwritten")
    recordings, notes = find_recordings(in_dir)
    if not recordings:
        raise no_recordings(in_dir, notes)
    for folder in {out_dir / recording.speaker for recording in recordings} | {out_dir}:
        delete_unfinished(folder)
    report, job = ResampleReport(passed_over=notes), ResampleJob(out_dir, sampling_rate, full_scale)
    changed = _note_settings(out_dir, {"sampling_rate": sampling_rate, "full_scale": full_scale})
    sources: dict[Path, Path] = {}
    waiting = []
    for recording in recordings:
        target = job.target(recording)
        if target in sources:
            report.failed.append(f"{recording.path}: {sources[target].name} has the same name; rename one of them")
            continue
        sources[target] = recording.path
        if not _up_to_date(recording.path, target, changed):
            waiting.append(recording)
    report.up_to_date = len(sources) - len(waiting)
    with unwinding(), contextlib.closing(run_job(job, waiting, workers)) as outcomes:
        for outcome in progress(outcomes, total=len(waiting), description="resampling", unit="clip"):
            report.made += outcome.failed is None
            report.failed += [outcome.failed] if outcome.failed else []
            report.cut_off += [outcome.cut_off] if outcome.cut_off else []
    if report.made + report.up_to_date == 0:
        raise UserError(f"none of {len(recordings)} recordings could be prepared; the first: {report.failed[0]}")
    report.voiceless = voiceless(in_dir, {target.parent.name for target in sources if target.is_file()})
    return report


def default_processes() -> int:
    """30 on large machines, else all processors but two, at least one."""
    processors = cpu_count()
    return 30 if processors > 60 else max(processors - 2, 1)


# -- one clip ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result for one recording: why it failed, and what is missing at the end of its file, if anything."""

    failed: str | None = None
    cut_off: str | None = None


@dataclass(frozen=True)
class ResampleJob:
    """Prepares one recording after the other."""

    out_dir: Path
    sampling_rate: int
    full_scale: bool

    def set_up(self, rank: int, workers: int) -> None:
        """Nothing has to be loaded."""

    def __call__(self, recording: Recording) -> Outcome:
        try:
            return Outcome(cut_off=self.prepare(recording))
        except Exception as error:  # one clip must not stop the others
            return Outcome(failure(recording.path, error))

    def lost(self, recording: Recording, reason: str) -> Outcome:
        return Outcome(f"{recording.path}: {reason}")

    def target(self, recording: Recording) -> Path:
        return self.out_dir / recording.speaker / f"{recording.path.stem}.wav"

    def prepare(self, recording: Recording) -> str | None:
        """Read, trim, resample, scale and write one clip; returns a sentence when the recording is cut off.

        Raises UserError naming the file that cannot be prepared.
        """
        sound = MonoFile(recording.path)
        levels, rate = sound.measure(*TRIM_FRAMES), sound.sampling_rate
        if sound.peak < 1 / 32768:
            raise UserError(f"{recording.path} holds only silence")
        audio = trim_silence(sound.read(), levels)
        if len(audio) < SHORTEST_CLIP * rate:
            seconds = len(audio) / rate
            raise UserError(f"{recording.path} holds {seconds:.2f} s of sound; a clip needs {SHORTEST_CLIP} s or more")
        audio = _peak_safe(resample(audio, rate, self.sampling_rate))  # filters overshoot
        if self.full_scale:
            audio = audio * (FULL_SCALE / np.abs(audio).max())
        write_audio(self.target(recording), audio, self.sampling_rate)
        return sound.cut_off


def trim_silence(audio: np.ndarray, levels: Levels, top_db: float = TRIM_DB) -> np.ndarray:
    """``(L,)`` without what lies before the first and behind the last frame within ``top_db`` of the loudest.

    ``levels`` are measured in TRIM_FRAMES.
    """
    hop, share = TRIM_FRAMES[1], 10 ** (-top_db / 20)
    rms = np.maximum(levels.curve(max(levels.rms.max(), 1e-5) * share), 1e-5)
    loud = np.flatnonzero(rms > rms.max() * share)
    return audio[loud[0] * hop : (loud[-1] + 1) * hop]


def _peak_safe(audio: np.ndarray) -> np.ndarray:
    peak = np.abs(audio).max()
    return audio * (SAFE_PEAK / peak) if peak > 1 else audio


# -- what was made before ---------------------------------------------------------------------------------------------


def _note_settings(out_dir: Path, settings: dict) -> int:
    """Keep the settings beside the clips; returns when they last changed (nanoseconds)."""
    path, text = out_dir / SETTINGS, json.dumps(settings) + "\n"
    try:
        if not path.is_file() or path.read_bytes().decode("utf-8", "replace") != text:
            write_text(path, text)
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{out_dir} cannot be written to: {error.strerror}") from None


def _up_to_date(source: Path, target: Path, settings_changed: int) -> bool:
    """Made since its recording came here (a copy may keep an old date of change, its ctime is new) and was set up."""
    if not target.is_file():
        return False
    status = source.stat()
    return target.stat().st_mtime_ns > max(status.st_mtime_ns, status.st_ctime_ns, settings_changed)
