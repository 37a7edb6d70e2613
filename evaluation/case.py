"""A converted sound and what it is compared with: found by name, read, and cut into excerpts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from evaluation.words import normalize
from modules.audio.files import read_audio, resample
from modules.console import UserError, option

RATE = 44100  # Hz; all sounds are compared at this rate
LONGEST, EXCERPT = 20.0, 12.0  # seconds; a longer sound is cut into excerpts of at most these
LARGEST_DIFFERENCE = 1.0  # seconds, between the lengths of sounds that are compared


class Curve(Protocol):
    """F0 in time, as ``inference.f0_curve.F0Curve``."""

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F0 in Hz and voicing at ``times`` in seconds."""
        ...


@dataclass(frozen=True)
class Case:
    """One converted sound.

    Attributes:
        name: in the report.
        converted: the file to judge.
        source: the song that was converted.
        reference: the same song by the target's voice, with the same timing.
        text: the words.
        shift: semitones by which the conversion moved the source's pitch.
        curve: the F0 that the decoder was given.
    """

    name: str
    converted: Path
    source: Path | None = None
    reference: Path | None = None
    text: str | None = None
    shift: float = 0.0
    curve: Curve | None = None

    def excerpts(self) -> list[Excerpt]:
        """Read the sounds, cut into excerpts of equal length if the converted one is longer than 20 seconds.

        With a text nothing is cut. Raises UserError as ``read_audio``, and if the source or the reference is more than
        a second longer or shorter than the converted sound.
        """
        sounds = {
            role: Sound.read(path)
            for role in ("converted", "source", "reference")
            if (path := getattr(self, role)) is not None
        }
        length = len(sounds["converted"].audio)
        for role, sound in sounds.items():
            if abs(len(sound.audio) - length) > LARGEST_DIFFERENCE * RATE:
                raise UserError(
                    f"{self.converted} has {length / RATE:.1f} s, but {option(role)} {getattr(self, role)} has "
                    f"{len(sound.audio) / RATE:.1f} s; they must be the same song with the same timing"
                )
        parts = math.ceil(length / RATE / EXCERPT) if length > LONGEST * RATE and not self.text else 1
        edges = [round(length * part / parts) for part in range(parts + 1)]
        return [
            Excerpt(
                self.name if parts == 1 else f"{self.name}, part {part + 1}",
                **{role: sound.cut(start, end if end < length else None) for role, sound in sounds.items()},
                text=self.text, shift=self.shift, curve=self.curve, start=start / RATE,
            )
            for part, (start, end) in enumerate(zip(edges, edges[1:], strict=False))
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sound:
    """Mono audio (L,) at 44.1 kHz, and the rate of its file in Hz."""

    audio: np.ndarray
    rate: int = RATE

    @classmethod
    def read(cls, path: Path) -> Sound:
        audio, rate = read_audio(path)
        return cls(resample(audio, rate, RATE), rate)

    def cut(self, start: int, end: int | None) -> Sound:
        return Sound(self.audio[start:end], self.rate)


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A span of a case, from ``start`` seconds on, read into memory; the other attributes are as in ``Case``."""

    name: str
    converted: Sound
    source: Sound | None = None
    reference: Sound | None = None
    text: str | None = None
    shift: float = 0.0
    curve: Curve | None = None
    start: float = 0.0


def find_sounds(path: Path, name: str) -> list[Path]:
    """Return a file, or the sounds of a folder and the folders within it, sorted.

    ``name`` is the setting of the path. Raises UserError if there is none.
    """
    from modules.audio import ffmpeg

    if path.is_file():
        return [path]
    suffixes = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"} | ffmpeg.SUFFIXES
    found = sorted(
        file
        for file in (path.rglob("*") if path.is_dir() else ())
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )
    if not found:
        raise UserError(f"{option(name)}: {path} is no sound file and no folder with sound files")
    return found


def name_clips(paths: Sequence[Path], folder: Path | None = None) -> list[str]:
    """Return the name of each clip in reports: its path below ``folder``, by default the one that all share.

    The suffix is left out. Raises UserError if two clips have the same name.
    """
    if folder:
        names = [str(path.relative_to(folder).with_suffix("")) for path in paths]
    else:
        names = short_names([str(path.absolute().with_suffix("")) for path in paths])
    named: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in named:
            both = f"two results belong to {path}" if path == named[name] else f"{named[name]} and {path} have one name"
            raise UserError(f"{both}; judge them in two runs")
        named[name] = path
    return names


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names without the folders that all of them share."""
    parts = [Path(name).parts for name in names]
    common = 0
    while len({part[: common + 1] for part in parts}) == 1 and all(len(part) > common + 1 for part in parts):
        common += 1
    return [str(Path(*part[common:])) for part in parts]


def partners(converted: Sequence[Path], path: Path, name: str) -> list[Path]:
    """Return for each converted file the sound of ``path`` that it belongs to; ``name`` is the setting of the path.

    A file belongs to all; of a folder see ``pair``. Raises UserError for a file without a partner.
    """
    others = find_sounds(path, name)
    return others * len(converted) if path.is_file() else pair(converted, others, name)


def pair(converted: Sequence[Path], others: Sequence[Path], name: str) -> list[Path]:
    """Return for each converted file the other file whose name is equal without the suffix, or begins the same.

    The results of inference_main.py begin with the song's name. Raises UserError for a file without a partner, or
    with two.
    """
    found = []
    for path in converted:
        matching = [
            other
            for other in others
            if path.stem == other.stem or path.name.startswith((f"{other.name}_", f"{other.stem}_"))
        ]
        if not matching:
            raise UserError(f"{option(name)} has no file for {path}; it needs one with the same name")
        longest = max(len(other.stem) for other in matching)
        best = [other for other in matching if len(other.stem) == longest]
        if len(best) > 1:
            raise UserError(f"{option(name)} has two files for {path}: {best[0]} and {best[1]}; remove one of them")
        found.append(best[0])
    return found


def pair_files(
    converted: Path,
    name: str,
    source: Path | None = None,
    reference: Path | None = None,
    text: str | None = None,
    shift: float = 0.0,
    curve: Curve | None = None,
) -> list[Case]:
    """Return the cases of a converted file or of a folder of them; ``name`` is the setting of its path.

    ``source`` and ``reference`` are as in ``partners``, ``text`` as in ``find_texts``. Raises UserError as these, and
    for one ``curve`` with several files.
    """
    files = find_sounds(converted, name)
    if curve and len(files) != 1:
        raise UserError(
            f"{option('f0')} is the F0 of one song, but {converted} holds {len(files)} sounds; name one of them"
        )
    none: list[None] = [None] * len(files)
    sources = partners(files, source, "source") if source else none
    references = partners(files, reference, "reference") if reference else none
    texts = find_texts(text, files) if text is not None else none
    named_by, folder = (sources, source) if source and source.is_dir() else (files, converted)
    names = name_clips(named_by, folder if folder.is_dir() else None)
    return [Case(*values, shift, curve) for values in zip(names, files, sources, references, texts, strict=True)]


def find_texts(text: str, converted: Sequence[Path]) -> list[str]:
    """Return the words of each converted file: of a .txt file, of a folder of such files with the same names, or
    ``text`` itself, for all of them. Raises UserError if a file is missing, no text or without words."""
    path = Path(text)
    try:
        if text and path.is_dir():
            files = pair(converted, sorted(path.glob("*.txt")), "text")
            return [_read_words(file) for file in files]
        if path.suffix == ".txt" or path.is_file():
            return [_read_words(path)] * len(converted)
    except (OSError, ValueError) as error:
        raise UserError(f"{option('text')}: {path} cannot be read as a UTF-8 text: {error}") from None
    if not normalize(text):
        raise UserError(f"{option('text')} is given without words; give them, or leave it out")
    return [text] * len(converted)


def _read_words(path: Path) -> str:
    text = path.read_text(encoding="utf-8-sig").strip()
    if not normalize(text):
        raise UserError(f"{option('text')}: {path} holds no words; write them there, or remove it")
    return text
