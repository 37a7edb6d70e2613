"""Stage 0: cut long recordings at silences into clips for training."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modules.atomic_file import write_text
from modules.audio.files import write_audio
from modules.audio.mono_file import MonoFile
from modules.audio.slicer import Slicer
from modules.console import UserError, failure, option, progress
from modules.untrusted.json_file import read_json
from preparation.recordings import (
    Recording,
    find_recordings,
    first_few,
    no_recordings,
    recordings_of,
    refuse_names,
    refuse_overlapping_folders,
    speakers_without_clips,
)

HOP_MS = 10
LEDGER = ".slice_audio.json"
LONGEST_ENDING = "_10000.wav"  # the longest suffix that is appended to a recording's name


@dataclass(frozen=True)
class CutSettings:
    """Lengths in seconds, ``threshold`` in dB below full scale, intervals in milliseconds."""

    min_length: float = 5
    max_length: float = 15
    threshold: float = -40
    min_interval: float = 300  # shortest silence that is cut
    keep_silence: float = 500  # kept at both ends of a clip, because breaths are quieter than the threshold

    def __post_init__(self):
        if not 0 < self.min_length * 2 <= self.max_length:
            raise UserError(
                f"{option('max_length')} is {self.max_length:g} and {option('min_length')} {self.min_length:g}; the "
                "former must be at least twice the latter, so that every stretch of sound can be cut"
            )

    def slicer(self, rate: int) -> Slicer:
        return Slicer(rate, self.threshold, 1000 * self.min_length, self.min_interval, HOP_MS, self.keep_silence)


@dataclass
class CutReport:
    clips: int = 0
    seconds: float = 0.0
    dropped: int = 0  # stretches that are too short
    dropped_seconds: float = 0.0
    silent_seconds: float = 0.0
    up_to_date: int = 0  # recordings that are cut already
    failed: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)  # a sentence for each truncated recording
    passed_over: list[str] = field(default_factory=list)
    speakers_without_clips: list[str] = field(default_factory=list)  # a sentence for each


@dataclass(frozen=True)
class Plan:
    """How to cut one recording, as ranges of samples ``[start, end)``."""

    clips: list[tuple[int, int]]
    dropped: list[tuple[int, int]]
    samples: int
    rate: int
    cut_off: str | None  # a sentence if the recording is truncated

    def seconds(self, ranges: list[tuple[int, int]]) -> float:
        return sum(end - start for start, end in ranges) / self.rate


def cut_folder(in_dir: str | Path, out_dir: str | Path, settings: CutSettings) -> CutReport:
    """Cut ``in_dir/<speaker>/*``, or the files of ``in_dir`` itself, into ``out_dir/<speaker>/<stem>_0000.wav`` ...

    A ledger in ``out_dir`` lists the clips of each recording. A recording in it that is unchanged and was cut with the
    same settings is skipped, even if some of its clips were deleted by hand; otherwise its former clips are replaced.
    Files that are not in the ledger are never overwritten. Raises UserError if there are no recordings, if the clips
    would lie among the recordings, if no recording can be cut, or if no clip results.
    """
    in_dir, out_dir = Path(in_dir), Path(out_dir)
    recordings, notes = find_recordings(in_dir)
    if not recordings:
        recordings, notes = recordings_of(in_dir, in_dir.resolve().name)
    if not recordings:
        raise no_recordings(in_dir, notes)
    cure = f"name another folder for the clips with {option('out_dir')}"
    refuse_overlapping_folders(in_dir, recordings, out_dir, cure)
    fit, refused = refuse_names(recordings, LONGEST_ENDING)
    ledger, report = Ledger(out_dir), CutReport(passed_over=notes, failed=list(refused.values()))
    cut = 0
    for recording in progress(fit, description="cutting", unit="recording"):
        if ledger.is_done(recording, settings):
            report.up_to_date += 1
            continue
        try:
            _add(report, _cut(recording, out_dir, settings, ledger))
            cut += 1
        except Exception as error:  # a failure must not stop the other recordings
            report.failed.append(failure(recording.path, error))
    if not cut and not report.up_to_date:
        raise UserError(f"none of {len(recordings)} recordings could be cut: {first_few(report.failed)}")
    if not report.clips and not report.up_to_date:
        raise UserError(
            f"no clip was made: {in_dir} holds {report.silent_seconds:.1f} s of silence and "
            f"{report.dropped_seconds:.1f} s in stretches shorter than {option('min_length')} "
            f"({settings.min_length:g} s); lower that or {option('threshold')}"
            + "".join(f"; not cut: {sentence}" for sentence in report.failed[:1])
        )
    if any(recording.path.parent != in_dir for recording in recordings):
        report.speakers_without_clips = speakers_without_clips(in_dir, ledger.speakers())
    return report


def _cut(recording: Recording, out_dir: Path, settings: CutSettings, ledger: Ledger) -> Plan:
    sound = MonoFile(recording.path)
    plan = plan_clips(sound, settings)
    names = [f"{recording.speaker}/{recording.path.stem}_{index:04d}.wav" for index in range(len(plan.clips))]
    ledger.begin(recording, settings, names)
    for name, audio in zip(names, sound.parts(plan.clips), strict=True):
        write_audio(out_dir / name, audio, plan.rate)
    ledger.finish(recording)
    return plan


def _add(report: CutReport, plan: Plan) -> None:
    report.clips += len(plan.clips)
    report.seconds += plan.seconds(plan.clips)
    report.dropped += len(plan.dropped)
    report.dropped_seconds += plan.seconds(plan.dropped)
    report.cut_off += [plan.cut_off] if plan.cut_off else []
    report.silent_seconds += plan.samples / plan.rate - plan.seconds(plan.clips) - plan.seconds(plan.dropped)


# -- where to cut -----------------------------------------------------------------------------------------------------


def plan_clips(sound: MonoFile, settings: CutSettings) -> Plan:
    """Measure a recording and choose its cuts. Raises UserError as MonoFile does, and if all is below the threshold."""
    slicer = settings.slicer(sound.sampling_rate)
    rms = sound.measure(slicer.window, slicer.hop).curve(slicer.limit)
    if rms.max() < slicer.limit:
        loudest = 20 * math.log10(max(rms.max(), 1e-6))
        raise UserError(
            f"the loudest moment of {sound.path} is {loudest:.0f} dB, and what is below {settings.threshold:g} dB "
            f"({option('threshold')}) counts as silence; lower that, or normalise the recording"
        )
    clips, dropped = choose_ranges(rms, sound.samples, slicer, settings)
    return Plan(clips, dropped, sound.samples, sound.sampling_rate, sound.cut_off)


def choose_ranges(
    rms: np.ndarray, samples: int, slicer: Slicer, settings: CutSettings
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Choose the clips and the dropped stretches from a loudness curve, as sample ranges.

    Every clip is between min_length and max_length long. A shorter stretch is joined to a neighbour if the silence
    between them is not longer than itself, and dropped otherwise. A longer stretch is cut where it is quietest.
    """
    shortest = round(settings.min_length * slicer.sampling_rate / slicer.hop)
    longest = int(settings.max_length * slicer.sampling_rate / slicer.hop)
    chunks = slicer.slice_curve(rms, samples)
    pieces = [(chunk.start, chunk.end) for chunk in chunks if not chunk.is_silence and chunk.end > chunk.start]
    loud = rms >= slicer.limit
    clips, dropped = [], []
    for start, end in _join_short(pieces, shortest * slicer.hop):
        first, last = start // slicer.hop, end // slicer.hop
        if not loud[first : last + 1].any():
            continue
        if end - start < shortest * slicer.hop:
            dropped.append((start, end))
            continue
        edges = [start, *(frame * slicer.hop for frame in _quiet_cuts(rms, first, last, shortest, longest)), end]
        clips += zip(edges[:-1], edges[1:], strict=True)
    return clips, dropped


def _join_short(pieces: list[tuple[int, int]], shortest: int) -> list[tuple[int, int]]:
    """Join neighbours if one is too short, unless the silence between them is longer than the shorter one."""
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        if joined:
            before, until = joined[-1]
            length = min(until - before, end - start)
            if length < shortest and start - until <= length:
                joined[-1] = (before, end)
                continue
        joined.append((start, end))
    return joined


def _quiet_cuts(rms: np.ndarray, first: int, last: int, shortest: int, longest: int) -> Iterator[int]:
    """Yield the frames at which to cut ``[first, last]``: the quietest ones that leave parts between ``shortest`` and
    ``longest``. Requires ``longest >= 2 * shortest``."""
    while last - first >= longest:
        earliest = first + shortest
        latest = max(earliest, min(first + longest - 1, last - shortest))
        first = earliest + int(rms[earliest : latest + 1].argmin())
        yield first


# -- ledger of former runs --------------------------------------------------------------------------------------------


class Ledger:
    """``out_dir/.slice_audio.json``: each recording's size, date, settings and clips, and whether they are complete."""

    def __init__(self, out_dir: Path):
        self.out_dir, self.path = out_dir, out_dir / LEDGER
        try:
            self.entries: dict[str, dict] = read_json(self.path)
            if not isinstance(self.entries, dict) or not all(map(_is_entry, self.entries.values())):
                raise ValueError
        except FileNotFoundError:
            self.entries = {}
        except (OSError, ValueError):
            raise UserError(f"{self.path} cannot be read; remove it together with the clips beside it") from None

    def is_done(self, recording: Recording, settings: CutSettings) -> bool:
        """Return whether all clips of the recording are made; False if it gave none, so that every run reports it."""
        entry = self.entries.get(_key(recording), {"done": False})
        return entry["done"] and bool(entry["clips"]) and entry["made_from"] == _made_from(recording, settings)

    def begin(self, recording: Recording, settings: CutSettings, names: list[str]) -> None:
        """Delete the former clips of a recording and note the names of the new ones.

        Raises UserError if a name belongs to a file that was not cut from this recording.
        """
        former = self.entries.get(_key(recording), {}).get("clips", [])
        for name in names:
            if name not in former and (self.out_dir / name).exists():
                raise UserError(f"{self.out_dir / name} is there and was not cut from {recording.path}; move it away")
        entry = {"made_from": _made_from(recording, settings), "clips": sorted({*former, *names}), "done": False}
        self.entries[_key(recording)] = entry
        self._save()
        for name in former:
            (self.out_dir / name).unlink(missing_ok=True)
        entry["clips"] = names

    def speakers(self) -> set[str]:
        """Return the speakers with clips."""
        return {key.partition("/")[0] for key, entry in self.entries.items() if entry["clips"]}

    def finish(self, recording: Recording) -> None:
        self.entries[_key(recording)]["done"] = True
        self._save()

    def _save(self) -> None:
        try:
            write_text(self.path, json.dumps(self.entries) + "\n")
        except OSError as error:
            raise UserError(f"{self.out_dir} cannot be written to: {error.strerror}") from None


def _is_entry(entry: Any) -> bool:
    """Return whether the value is an entry whose clips all lie in speaker folders; ``begin`` deletes such files."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("done"), bool)
        and isinstance(entry.get("made_from"), dict)
        and isinstance(entry.get("clips"), list)
        and all(isinstance(name, str) and _is_in_a_folder(Path(name)) for name in entry["clips"])
    )


def _is_in_a_folder(path: Path) -> bool:
    return len(path.parts) == 2 and not path.is_absolute() and ".." not in path.parts


def _key(recording: Recording) -> str:
    return f"{recording.speaker}/{recording.path.name}"


def _made_from(recording: Recording, settings: CutSettings) -> dict:
    status = recording.path.stat()
    return {"bytes": status.st_size, "changed": status.st_mtime_ns, **dataclasses.asdict(settings)}
