"""The clips that a trial converts, and the cases in which its conversions are judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.case import Case, find_sounds, find_texts, name_clips, partners
from inference.jobs import find_songs
from inference.trial import Converted, Trial
from modules.console import UserError, option
from modules.data.filelist import read_filelist


@dataclass(frozen=True)
class Clips:
    """The songs to convert, the target's own validation clips, and the recordings of the target's voice."""

    songs: list[Path]
    own: list[Path]
    targets: list[Path]


def find_clips(trial: Trial, names: Sequence[str] = (), target: Path | None = None) -> Clips:
    """Find the clips for a trial.

    Songs are those of the ``names``, or else the validation clips of other speakers, or else of the target; the
    recordings those of ``target``, or else the speaker's training clips. Raises UserError if songs are missing, or no
    names are given and the file lists are not there.
    """
    songs = list(dict.fromkeys(path for name in names for path in find_songs(name).values()))
    speaker = trial.svc.voices.name_of(trial.conversion.spk)
    validation, training = _file_lists(trial)
    if not songs and not validation:
        raise UserError(
            f"the model's validation clips are not there; give songs with {option('clean_names')}, or run it in the "
            "folder that the model was trained in"
        )
    own = [path for path in validation if path.parent.name == speaker]
    songs = songs or [path for path in validation if path.parent.name != speaker] or own
    targets = [path for path in training if path.parent.name == speaker]
    return Clips(songs, own, find_sounds(target, "target") if target else targets)


def _file_lists(trial: Trial) -> tuple[list[Path], list[Path]]:
    """Return the validation and training clips of the model; none if its lists cannot be read."""
    if not trial.svc.config:
        return [], []
    data = trial.svc.config.data
    try:
        return read_filelist(data.validation_files), read_filelist(data.training_files)
    except UserError:
        return [], []


def as_cases(
    converted: Sequence[Converted], own: Sequence[Path], text: str | None = None, reference: Path | None = None
) -> list[Case]:
    """Return the cases of converted songs; ``text`` and ``reference`` are paths or words as in ``find_texts``.

    Without a reference, a clip of the target itself (``own``) is what its conversion at the same pitch should be.
    """
    songs = [one.song for one in converted]
    texts = find_texts(text, songs) if text is not None else [None] * len(songs)
    references = [one.song if one.song in own and one.shift == 0 else None for one in converted]
    if reference:
        references = partners(songs, reference, "reference")
    return [
        Case(name, one.path, one.song, sung, words, one.shift, one.curve)
        for name, one, words, sung in zip(name_clips(songs), converted, texts, references, strict=True)
    ]


def convert_to_itself(trial: Trial, clips: Clips, folder: Path) -> list[Case]:
    """Convert the target's own clips, which are no songs, to the target at their own pitch; returns their cases."""
    conversion = dataclasses.replace(trial.conversion, tran=0, f0_curve=None)
    to_itself = dataclasses.replace(trial, conversion=conversion, auto_key=False)
    return as_cases(to_itself.convert([path for path in clips.own if path not in clips.songs], folder), clips.own)
