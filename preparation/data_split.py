"""Split the clips into those for training and those for validation, and write both filelists."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from modules.atomic_file import write_text
from modules.audio.files import open_audio
from modules.console import UserError, get_logger
from modules.data.features import SHORTEST_CLIP, find_clips
from modules.data.file_name import list_flaw
from preparation.recordings import Recording, is_sound_name, refuse_names
from preparation.report import count_and_first

log = get_logger("filelists")

VALIDATION_CLIPS = 2  # per speaker, as published
FEWEST_CLIPS = VALIDATION_CLIPS + 1


@dataclass
class Inventory:
    """The clips of a data set: usable ones by speaker, their total length in seconds, and what is left out."""

    clips: dict[str, list[Path]] = field(default_factory=dict)
    seconds: float = 0.0
    too_short: list[Path] = field(default_factory=list)
    misplaced: list[Path] = field(default_factory=list)  # sound files that are not a .wav in a speaker's folder
    unusable: dict[Path, str] = field(default_factory=dict)  # clip, or a speaker's whole folder -> reason

    @property
    def speakers(self) -> dict[str, int]:
        """Speaker name -> number from 0, in alphabetical order: the same folders always give the same numbers."""
        return {name: number for number, name in enumerate(sorted(self.clips))}


def write_filelists(
    inventory: Inventory, source_dir: str, train_list: str | Path, val_list: str | Path, seed: int
) -> None:
    """Split the clips found in ``source_dir`` and write both lists; logs what is left out and why."""
    train, validation = split(inventory, source_dir, seed)
    for path, lines in ((train_list, train), (val_list, validation)):
        write_text(path, "".join(f"{line}\n" for line in lines))
    if inventory.misplaced:
        log.warning(
            "passed over: %s: not a .wav in a speaker's folder; put such recordings into dataset_raw/<speaker>/ and "
            "run resample.py, which makes clips of them",
            count_and_first(inventory.misplaced, "sound file"),
        )
    for clip in inventory.too_short:
        log.warning("passed over: %s is shorter than %s s", clip, SHORTEST_CLIP)
    for reason in inventory.unusable.values():
        log.warning("passed over: %s", reason)
    log.info("%s: %d clips to train; %s: %d to validate", train_list, len(train), val_list, len(validation))


def take_inventory(folder: str | Path, sampling_rate: int) -> Inventory:
    """Find the clips ``folder/<speaker>/*.wav`` and read their headers.

    Clips of another sampling rate are unusable, and so are clips whose name, or whose speaker's name, a later stage
    cannot process. Raises UserError if there are no speakers, if a speaker has too few usable clips, or if a filelist
    cannot hold the path ``folder``.
    """
    if flaw := list_flaw(str(folder).replace(os.sep, "/")):
        raise UserError(f"{folder} {flaw}")
    if str(folder)[:1].isspace():
        raise UserError(f"'{folder}' begins with a blank, which a filelist does not keep; put './' before it")
    speakers = find_clips(folder)
    named, refused = refuse_names([Recording(name, clip) for name, clips in speakers.items() for clip in clips], ".wav")
    inventory = Inventory(
        {name: [] for name in speakers if Path(folder) / name not in refused},
        misplaced=find_misplaced(Path(folder)),
        unusable=refused,
    )
    if not inventory.clips:
        raise UserError(next(iter(refused.values())))
    for clip in named:
        if _take(clip.path, inventory, sampling_rate):
            inventory.clips[clip.speaker].append(clip.path)
    _refuse_too_few(inventory, Path(folder))
    return inventory


def find_misplaced(folder: Path) -> list[Path]:
    """Return the sound files in ``folder`` and its speakers' folders that ``find_clips`` does not return.

    Raises UserError as ``find_clips`` does.
    """
    speakers = find_clips(folder)
    clips = {clip for of_speaker in speakers.values() for clip in of_speaker}
    files = (file for parent in (folder, *(folder / name for name in speakers)) for file in parent.iterdir())
    return sorted(file for file in files if file not in clips and is_sound_name(file) and file.is_file())


def _take(clip: Path, inventory: Inventory, sampling_rate: int) -> bool:
    try:
        with open_audio(clip) as sound:
            rate, seconds = sound.samplerate, sound.frames / sound.samplerate
    except UserError as error:
        inventory.unusable[clip] = str(error)
        return False
    if rate != sampling_rate:
        inventory.unusable[clip] = f"{clip} has {rate} Hz, the configuration {sampling_rate}; run resample.py again"
        return False
    if seconds < SHORTEST_CLIP:
        inventory.too_short.append(clip)
        return False
    inventory.seconds += seconds
    return True


def _refuse_too_few(inventory: Inventory, folder: Path) -> None:
    few = {speaker: clips for speaker, clips in inventory.clips.items() if len(clips) < FEWEST_CLIPS}
    if not few:
        return
    counts = ", ".join(f"{speaker} {len(clips)}" for speaker, clips in few.items())
    passed_over = [
        f"{clip} is shorter than {SHORTEST_CLIP} s" for clip in inventory.too_short if clip.parent.name in few
    ] + [reason for clip, reason in inventory.unusable.items() if clip.parent.name in few]
    passed_over += [f"{path} is no .wav" for path in inventory.misplaced if path.parent.name in few]
    more = f" ({'; '.join(passed_over[:3])}{'; ...' if len(passed_over) > 3 else ''})" if passed_over else ""
    raise UserError(
        f"too few usable clips in {folder}: {counts}{more}; each speaker needs {FEWEST_CLIPS} .wav files or more, "
        f"{VALIDATION_CLIPS} of which validate: record or slice more, and run resample.py"
    )


def split(inventory: Inventory, source_dir: str, seed: int) -> tuple[list[str], list[str]]:
    """Return the training and the validation list: shuffled lines ``<source_dir>/<speaker>/<clip>.wav``.

    The same seed gives the same lists. Each speaker's clips are shuffled separately, so that a new speaker does not
    change the validation clips of the others.
    """
    train, validation = [], []
    root = source_dir.replace(os.sep, "/").rstrip("/")
    for speaker, clips in inventory.clips.items():
        lines = [f"{root}/{speaker}/{clip.name}" for clip in clips]
        random.Random(f"{seed} {speaker}").shuffle(lines)
        validation += lines[:VALIDATION_CLIPS]
        train += lines[VALIDATION_CLIPS:]
    for lines in (train, validation):
        random.Random(seed).shuffle(lines)
    return train, validation
