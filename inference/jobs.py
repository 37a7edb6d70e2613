"""Songs to convert: found by name, each with its settings and the file of its result."""

from __future__ import annotations

import dataclasses
import glob
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference.conversion import Conversion
from modules.console import UserError, get_logger, option, printable, progress
from modules.data.file_name import nfd, result_flaw, same_file_key
from modules.registry import nearest_first

if TYPE_CHECKING:  # a plan needs none of the heavy packages behind these
    from inference.song import Song
    from inference.svc import Svc

log = get_logger("convert")

RAW = Path("raw")
AUTO = "auto"  # in place of a shift: chosen from the song's F0 and the speaker's
FOLDS_NAMES = os.name == "nt" or sys.platform == "darwin"  # such file systems ignore case


@dataclass(frozen=True)
class Job:
    """A song, how it is converted, and the file of the result. With ``auto_key`` the shift is chosen first."""

    song: Path
    conversion: Conversion
    output: Path
    wav_format: str
    auto_key: bool = False

    def run(self, svc: Svc, f0_out: Path | None = None) -> bool:
        """Convert from disk to disk, with a progress bar in seconds; returns False if the song's file is cut off.

        F0 is written to ``f0_out`` if that is given.
        """
        from inference.f0_curve import F0Log
        from inference.song import Song
        from modules.audio.files import write_audio

        song, f0_log = Song(self.song), F0Log() if f0_out else None
        conversion = self._with_key(svc, song)
        with progress(total=round(song.seconds), description=self.song.name, unit="s") as bar:
            audio = svc.convert(
                song, conversion, on_progress=lambda seconds: bar.update(round(seconds) - bar.n), f0_log=f0_log
            )
            write_audio(self.output, audio, svc.target_sample, self.wav_format)
            bar.update(bar.total - bar.n)
        if f0_log:
            if f0_out.exists():
                log.info("%s is replaced", f0_out)
            f0_log.write(f0_out)
        return song.cut_off is None

    def _with_key(self, svc: Svc, song: Song) -> Conversion:
        if not self.auto_key:
            return self.conversion
        return dataclasses.replace(self.conversion, tran=svc.suggest_shift(song, self.conversion))

    def describe(self, svc: Svc) -> str:
        """Describe in one line what ``run`` would do."""
        from inference.song import Song

        song = Song(self.song)
        conversion = self._with_key(svc, song)
        seconds = svc.piece_seconds(song, conversion)
        shift = f"{conversion.tran:+g} semitones"
        longest = f", the longest {max(seconds):.1f} s" if seconds else ""
        return (
            f"{printable(self.output)}: {song.seconds:.1f} s of song, {shift}, {len(seconds)} pieces of "
            f"{sum(seconds):.1f} s in all{longest}"
        )


def plan(
    names: Sequence[str],
    shifts: Sequence[float | str],
    speakers: Sequence[str],
    conversion: Conversion,
    kind: str,
    folder: Path,
    wav_format: str,
) -> tuple[list[Job], list[str]]:
    """Plan a job for every song and speaker; returns the jobs, and a sentence for each song or result that failed.

    A name without a shift takes the first; all songs of a folder or pattern share one. Results are named as published,
    ``kind`` included. A shift may be AUTO. A job fails if its song is missing or its result's name is not possible.
    Raises UserError if no job is left, there are more shifts than names, or two results have the same name.
    """
    if len(shifts) > len(names):
        raise UserError(
            f"{option('tran')} gives {len(shifts)} shifts for {len(names)} songs; give one for each, or one for all"
        )
    jobs: dict[str, Job] = {}
    failed = []
    ratio = f"_{conversion.cluster_infer_ratio}" if conversion.cluster_infer_ratio else ""
    for name, shift in itertools.zip_longest(names, shifts, fillvalue=shifts[0]):
        try:
            songs = find_songs(name)
        except UserError as error:
            failed.append(str(error))
            continue
        key = "auto" if conversion.auto_predict_f0 else f"{shift}key"
        for (called, song), speaker in itertools.product(
            songs.items(), ["spk_mix"] if conversion.use_spk_mix else speakers
        ):
            done = f"{called}_{key}_{speaker}{ratio}_{kind}_{conversion.f0_predictor}.{wav_format}"
            if flaw := result_flaw(done, speaker):
                failed.append(f"{song}: its result {flaw}")
                continue
            output, file = folder / done, same_file_key(done) if FOLDS_NAMES else done
            if file in jobs:
                raise UserError(f"two conversions would be written to {output}; make them in two runs")
            spk = conversion.spk if conversion.use_spk_mix else speaker
            settings = {"spk": spk} if shift == AUTO else {"spk": spk, "tran": shift}
            changed = dataclasses.replace(conversion, **settings)
            jobs[file] = Job(song, changed, output, wav_format, auto_key=shift == AUTO)
    if not jobs:
        raise UserError("; ".join(failed))
    return list(jobs.values()), failed


def find_songs(name: str) -> dict[str, Path]:
    """Find the songs of a name under raw/ or as a path, each by its name in results.

    ``name`` is a song (``.wav`` may be left out), a folder, or a pattern such as ``*.wav``; folders and patterns give
    all their audio files. A song is also found in another Unicode normal form, which archives from macOS have. Raises
    UserError if no song is found or the name is empty.
    """
    if not name.strip():
        raise UserError(f"{option('clean_names')} has an empty name; give a song, a folder or a pattern")
    paths = [RAW / name, Path(name)]
    candidates = [folder / f"{name}{suffix}" for folder in (RAW, Path()) for suffix in ("", ".wav")]
    for path in candidates:
        if os.path.isfile(path):  # False too if the name is too long
            return {Path(name).name: path}
    if found := next((path for path in paths if os.path.isdir(path)), None):
        if songs := _recordings(found.iterdir()):
            return songs
        raise UserError(f"the folder {found} holds no recording (folders within it are not looked into)")
    if found := next(filter(None, map(_in_other_normal_form, candidates)), None):
        return {Path(name).name: found}
    if set(name) & set("*?["):
        matches = (_recordings(map(Path, glob.glob(str(path)))) for path in paths)
        if songs := next(filter(None, matches), None):
            return songs
        raise UserError(f"no recording matches '{name}', neither as a path nor under {RAW}/ ({_raw_files(name)})")
    raise UserError(f"there is no song '{name}', neither as a path nor under {RAW}/ ({_raw_files(name)})")


def _in_other_normal_form(path: Path) -> Path | None:
    """Return the file beside ``path`` whose name is equal in Unicode's normal form D, or None."""
    others = path.parent.glob("*") if os.path.isdir(path.parent) else ()
    return next((other for other in others if nfd(other.name) == nfd(path.name) and other.is_file()), None)


def _recordings(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the audio files among the paths by name, sorted."""
    from preparation.recordings import is_recording

    return {path.name: path for path in sorted(paths) if path.is_file() and is_recording(path)}


def _raw_files(name: str) -> str:
    """List the files of raw/ as a clause of a message, the names most similar to ``name`` first."""
    found = [path.name for path in RAW.glob("*") if path.is_file() and path.name != "README.md"]
    return f"it holds {', '.join(nearest_first(name, found)[:8])}" if found else "which holds no file"
