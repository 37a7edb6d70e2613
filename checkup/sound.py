"""The sound of each speaker's recordings: minutes, lengths, level, clipping, noise, DC offset, silence, F0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checkup.clips import find_sound
from checkup.finding import Finding, counted, ok, warning
from checkup.picture import draw
from checkup.project import Project, every_nth
from modules.audio.files import open_audio, read_blocks
from modules.audio.mono_file import OFFSET
from modules.console import UserError, progress
from preparation.f0_ranges import measure_f0_ranges

MOST_HEARD = 200  # files of a speaker that are read
FRAME = 0.05  # seconds
FULL_SCALE = 0.999
RUN = 3  # samples at full scale in a row that count as clipped
SILENCE = 40  # dB below the loud frames
FEWEST_MINUTES = 10
SHORT, LONG = 1.0, 30.0  # seconds of a file that stands out; for LONG, of clips
MUCH_CLIPPED = 1e-4  # share of the samples
MUCH_SILENCE = 0.6
NOISY = 25  # dB between loud and faint frames of a speaker
NOISIER = 12  # dB above the speaker's other files
OTHER_VOICE = 10  # semitones from the speaker's median
CURE = "listen to them; export them anew, or delete them"


@dataclass(frozen=True)
class Sound:
    """Measures of one file.

    Attributes:
        seconds: its length.
        clipped, silence: shares of its samples and frames.
        offset: the mean, of full scale.
        level, floor: of the loud frames (95th percentile) and the faint ones (5th, without digital silence), in dB
            relative to full scale.
    """

    path: Path
    seconds: float
    clipped: float
    silence: float
    offset: float
    level: float
    floor: float


@dataclass(frozen=True)
class Speaker:
    """The measures of a speaker: the length of all files in minutes, the files that were read, and F0.

    ``f0`` maps each of some clips to the 10th, 50th and 90th percentile in Hz; ``f0_range`` are those of all of them.
    """

    name: str
    files: int
    minutes: float
    sounds: list[Sound]
    f0: dict[str, list[float]]
    f0_range: list[float] | None

    def of(self, measure: str) -> NDArray[np.float64]:
        """Return one measure of all sounds."""
        return np.array([getattr(sound, measure) for sound in self.sounds])


def check_sound(project: Project) -> Iterator[Finding]:
    """Yield a line for each speaker and the files that stand out, and draw the picture.

    Recordings are read if there are any, else clips; F0 is that of the clips' sidecar files.
    """
    speakers = []
    for name, files in find_sound(project).items():
        sounds = list(_read_all(name, every_nth(files, MOST_HEARD)))
        if sounds:
            minutes = sum(sound.seconds for sound in sounds) / 60 * len(files) / len(sounds)
            clips = every_nth(project.speakers.get(name, []), MOST_HEARD)
            f0 = measure_f0_ranges({str(clip): [clip] for clip in clips})
            whole = measure_f0_ranges({name: clips}).get(name)
            speakers.append(Speaker(name, len(files), minutes, sounds, f0, whole))
    if not speakers:
        yield ok("no sound to measure yet")
        return
    for speaker in speakers:
        yield _summary(speaker)
    for speaker in speakers:
        yield from _outliers(speaker)
    draw(speakers, project.picture)
    yield ok(f"drawn to {project.picture}")


def _read_all(name: str, files: Sequence[Path]) -> Iterator[Sound]:
    for path in progress(files, total=len(files), description=f"reading {name}", unit="file", leave=False):
        try:
            yield measure_sound(path)
        except UserError:  # the sections about recordings and clips name it
            continue


def measure_sound(path: Path) -> Sound:
    """Measure one file in memory of one block. Raises UserError if it cannot be read or is empty."""
    samples, total, clipped, squares = 0, 0.0, 0, []
    with open_audio(path) as file:
        size = max(1, round(FRAME * file.samplerate))
        for block in read_blocks(file):
            samples += len(block)
            total += float(block.mean(axis=1, dtype=np.float64).sum())
            clipped += _count_clipped(np.abs(block).max(axis=1) >= FULL_SCALE)
            mono = block.mean(axis=1)
            frames = mono[: len(mono) // size * size] if len(mono) >= size else mono
            squares.append(np.square(frames.reshape(-1, min(size, len(mono)))).mean(axis=1))
        if not samples:
            raise UserError(f"{path} holds no sound")
        seconds = samples / file.samplerate
    power = np.concatenate(squares).astype(np.float64)
    levels = 10 * np.log10(np.maximum(power, 1e-12))
    level = float(np.percentile(levels, 95))
    sounding = levels[power > 0]
    floor = float(np.percentile(sounding, 5)) if len(sounding) else level
    silence = float((levels < level - SILENCE).mean())
    return Sound(path, seconds, clipped / samples, silence, total / samples, level, floor)


def _count_clipped(full: NDArray[np.bool_]) -> int:
    """Return the number of samples in runs of RUN or more at full scale."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], full.view(np.int8), [0]))))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= RUN].sum())


def _summary(speaker: Speaker) -> Finding:
    """Return the line of a speaker."""
    seconds = speaker.of("seconds")
    low, middle, high = speaker.f0_range or (0, 0, 0)
    f0 = f"F0 {low:.0f} to {high:.0f} Hz (median {middle:.0f})" if speaker.f0_range else "F0 not measured yet"
    read = "" if len(speaker.sounds) == speaker.files else f", {len(speaker.sounds)} of them read"
    what = (
        f"{speaker.name}: {speaker.minutes:.1f} minutes in {speaker.files} files{read}, each {seconds.min():.1f} to "
        f"{seconds.max():.1f} s (median {np.median(seconds):.1f}); loud {np.median(speaker.of('level')):.0f} dB, faint "
        f"{np.median(speaker.of('floor')):.0f} dB, silence {speaker.of('silence').mean():.0%}, clipped "
        f"{speaker.of('clipped').mean():.2%}, {f0}"
    )
    if speaker.minutes < FEWEST_MINUTES:
        return warning(what, f"record more: {FEWEST_MINUTES} minutes are enough to start, half an hour is good")
    return ok(what)


def _outliers(speaker: Speaker) -> Iterator[Finding]:
    """Yield the files of a speaker that stand out, by kind."""
    sounds, faint = speaker.sounds, float(np.median(speaker.of("floor")))
    kinds = {
        f"shorter than {SHORT:.0f} s": [one for one in sounds if one.seconds < SHORT],
        "clipped": [one for one in sounds if one.clipped > MUCH_CLIPPED],
        "with a DC offset": [one for one in sounds if abs(one.offset) > 10 * OFFSET],
        "mostly silent": [one for one in sounds if one.silence > MUCH_SILENCE],
        "with louder faint parts than the others (a background, or no pause)": [
            one for one in sounds if one.floor > faint + NOISIER and one.level - one.floor < NOISY
        ],
    }
    for kind, found in kinds.items():
        if found:
            yield warning(f"{speaker.name}: {counted([one.path for one in found], 'file')} {kind}", CURE)
    if np.median(speaker.of("level") - speaker.of("floor")) < NOISY:
        what = f"{speaker.name}: the faint parts are less than {NOISY} dB below the loud ones: noise, or no pauses"
        yield warning(what, "remove the noise, if you hear any in the pauses")
    if speaker.f0_range:
        middle = speaker.f0_range[1]
        other = [clip for clip, hertz in speaker.f0.items() if abs(12 * np.log2(hertz[1] / middle)) > OTHER_VOICE]
        if other:
            what = f"{speaker.name}: {counted(other, 'clip')} more than {OTHER_VOICE} semitones from the median F0"
            yield warning(what, "listen to them: another voice, or F0 an octave off")
