"""A trial: songs converted with one model and one setting, to be judged. Conversions are kept and not repeated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.conversion import Conversion
from inference.f0_curve import F0Curve, read_f0_curve
from inference.jobs import Job
from inference.song import Song
from inference.svc import Svc
from modules.atomic_file import write_text
from modules.console import UserError, option
from modules.untrusted.json_file import read_json

BLOCK = 1 << 22  # bytes, of a file that is hashed


@dataclass(frozen=True)
class Converted:
    """A song that was converted.

    Attributes:
        song, path: the file and its conversion.
        shift: semitones by which the pitch was moved.
        curve: the F0 that the decoder was given, before the shift.
        seconds: that the conversion took, and of sound.
    """

    song: Path
    path: Path
    shift: float
    curve: F0Curve | None
    seconds: float
    length: float


@dataclass(frozen=True)
class Trial:
    """A converter and how it converts.

    Attributes:
        svc: the converter.
        conversion: the settings, with a speaker.
        fingerprint: of all that determines the result, beside the song.
        auto_key: the shift is chosen for each song.
    """

    svc: Svc
    conversion: Conversion
    fingerprint: str
    auto_key: bool = False

    def convert(self, songs: Sequence[Path], folder: Path) -> list[Converted]:
        """Convert songs into ``folder``; those that are there with the same settings are not converted again.

        Raises UserError for the first song that cannot be converted, and for several songs with one F0 curve.
        """
        curve = self.conversion.f0_curve
        if curve and len(songs) != 1:
            raise UserError(
                f"{option('f0_in')} is the F0 of one song, but {len(songs)} songs are to be converted; name its song "
                f"with {option('clean_names')}"
            )
        self.svc.check(self.conversion)
        settings = [dataclasses.replace(self.conversion, f0_curve=None), curve is None]  # the fingerprint has its file
        found, warm = [], False
        for song in songs:
            stem = f"{song.stem[:100]}_{_digest([self.fingerprint, *settings, self.auto_key], [song])}"
            notes = folder / f"{stem}.json"
            kept = _read(song, notes)
            if kept is None:
                if not warm:
                    self._warm_up(song)
                    warm = True
                self._convert(song, folder / stem, notes)
                kept = _read(song, notes)
            found.append(kept)
        return found

    def _warm_up(self, song: Path) -> None:
        """Convert the song's beginning, so that no measured time includes the loading of a network."""
        opened = Song(song)
        beginning = next(iter(opened.parts([(0, min(opened.samples, opened.sampling_rate))])))
        if abs(beginning).max() < 1e-3 or len(beginning) < opened.sampling_rate:
            return
        try:
            for _ in self.svc.convert(Song((beginning, opened.sampling_rate)), self.conversion):
                pass
        except UserError:  # too quiet a beginning, for instance
            return

    def _convert(self, song: Path, target: Path, notes: Path) -> None:
        conversion = self.conversion
        if self.auto_key:
            conversion = dataclasses.replace(conversion, tran=self.svc.suggest_shift(Song(song), conversion))
        sound, curve = target.with_name(f"{target.name}.wav"), target.with_name(f"{target.name}.csv")
        began = time.perf_counter()
        Job(song, conversion, sound, "wav").run(self.svc, None if conversion.auto_predict_f0 else curve)
        values = {"seconds": time.perf_counter() - began, "length": Song(song).seconds, "shift": conversion.tran}
        write_text(notes, json.dumps(values) + "\n")


def _read(song: Path, notes: Path) -> Converted | None:
    """Return a conversion that was kept; None unless its sound exists and the notes hold the numbers."""
    sound, curve = notes.with_suffix(".wav"), notes.with_suffix(".csv")
    try:
        content = read_json(notes)
        values = {name: float(content[name]) for name in ("shift", "seconds", "length")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not sound.is_file():
        return None
    try:
        read = read_f0_curve(curve) if curve.exists() else None
    except UserError:  # a song without F0
        read = None
    return Converted(song, sound, curve=read, **values)


def fingerprint(settings: Mapping[str, object], files: Iterable[Path | str | None]) -> str:
    """Return a key of settings and of the content of files, those that exist."""
    return _digest([sorted(settings.items(), key=str)], [Path(file) for file in files if file])


def _digest(values: Iterable[object], files: Iterable[Path]) -> str:
    digest = hashlib.blake2b(digest_size=10)
    for value in values:
        digest.update(repr(value).encode())
    for path in files:
        if path.is_file():
            with open(path, "rb") as file:
                for block in iter(_reader(file), b""):
                    digest.update(block)
    return digest.hexdigest()


def _reader(file) -> Callable[[], bytes]:
    return lambda: file.read(BLOCK)
