"""Which files of a folder are recordings, and whose."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.audio import ffmpeg
from modules.audio.files import open_audio
from modules.console import UserError
from modules.data.features import clip_flaw
from modules.data.file_name import same_file_key, speaker_flaw

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"} | ffmpeg.SUFFIXES
MOST_NOTES = 5  # in one sentence


@dataclass(frozen=True)
class Recording:
    speaker: str
    path: Path


def find_recordings(folder: str | Path) -> tuple[list[Recording], list[str]]:
    """The recordings in ``folder/<speaker>/`` in a stable order, and a sentence for each file that was passed over.

    A file counts when its suffix says that it is sound, or when it can be read whatever it is called.
    Raises UserError when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; put recordings into {folder / '<speaker>'}, one for each voice")
    recordings, notes = [], []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            found, passed_over = recordings_of(entry, entry.name)
            recordings += found
            notes += passed_over
        elif entry.is_dir():
            notes.append(f"passed over {entry}: a hidden folder")
        elif _is_dangling(entry):
            notes.append(f"passed over {entry}: a link whose target does not exist")
        elif is_sound_name(entry):
            notes.append(f"passed over {entry}: it lies beside the speakers' folders; move it into one of them")
    return recordings, notes


def recordings_of(folder: Path, speaker: str) -> tuple[list[Recording], list[str]]:
    """The same for the files of one folder, all of them ``speaker``'s."""
    recordings, notes = [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            notes.append(f"passed over {path}: a hidden file")
        elif path.is_dir():
            notes.append(f"passed over {path}: a folder inside a speaker's folder")
        elif is_recording(path):
            recordings.append(Recording(speaker, path))
        else:
            notes.append(f"passed over {path}: not sound that can be read (wav, flac, ogg, mp3 and others)")
    return recordings, notes


def refuse_names(recordings: Sequence[Recording], clip_ending: str) -> tuple[list[Recording], dict[Path, str]]:
    """Those whose clips, ``<stem><clip_ending>``, can go through all stages, and a sentence for each other one.

    Two whose clips would be one file on some system are not both among them. A speaker's folder of which that is true
    has one sentence for all its recordings. The order is that of ``find_recordings``.
    """
    fit, refused, folders = [], {}, {}
    for (speaker, folder), group in itertools.groupby(recordings, key=lambda one: (one.speaker, one.path.parent)):
        flaw = speaker_flaw(speaker) or _twin_flaw(speaker, folder, folders)
        if flaw:
            refused[folder] = f"{folder} {flaw}"
            continue
        clips: dict[str, tuple[str, Path]] = {}
        for recording in group:
            path, clip = recording.path, recording.path.stem + clip_ending
            if flaw := clip_flaw(clip) or _twin_flaw(clip, path, clips):
                refused[path] = f"{path} {flaw}"
            else:
                fit.append(recording)
    return fit, refused


def _twin_flaw(name: str, path: Path, taken: dict[str, tuple[str, Path]]) -> str | None:
    """Why there cannot be a ``name``, to be made of ``path``, beside those ``taken``; None if there can, which enters
    it there."""
    first, of = taken.setdefault(same_file_key(name), (name, path))
    if of == path:
        return None
    if first == name:
        return f"has the same name as {of.name}, so one clip would replace the other; rename one of them"
    return f"and {of.name} would be one file on Windows or macOS; give one of them another name"


def no_recordings(folder: Path, notes: Sequence[str]) -> UserError:
    """The error for a folder without recordings, with what was passed over in it."""
    sentence = f"{folder} holds no recordings; put them into {folder / '<speaker>'}, a folder for each voice"
    return UserError(first_few([sentence, *notes], MOST_NOTES + 1))


def first_few(sentences: Sequence[str], most: int = MOST_NOTES) -> str:
    """The first of the sentences in one, and how many more there are."""
    more = f" (and {len(sentences) - most} more)" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more


def voiceless(folder: Path, speakers: Collection[str]) -> list[str]:
    """A sentence for each speaker's folder in ``folder``, or link to one, that is not among the ``speakers`` of whom
    clips came."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = (entry for entry in entries if entry.is_dir() or _is_dangling(entry))
    return [f"no clip came of {entry}" for entry in sorted(folders) if entry.name not in speakers]


def _is_dangling(entry: Path) -> bool:
    """Whether it is a link without a target, as to a folder on a drive that is not connected."""
    return entry.is_symlink() and not entry.exists()


def refuse_shared_places(in_dir: Path, recordings: Iterable[Recording], out_dir: Path, cure: str) -> None:
    """Raise UserError, with the ``cure``, when clips in ``out_dir/<speaker>`` would come among the recordings.

    That is so when a folder that is read is one that is written to, or lies within it, or the other way round, links
    followed. Each run would take the clips of the run before for recordings, or write over the recordings.
    """
    speakers = {recording.speaker for recording in recordings}
    read = {path.resolve(): path for path in {recording.path.parent for recording in recordings} | {in_dir}}
    written = {path.resolve(): path for path in {out_dir / speaker for speaker in speakers} | {out_dir}}
    for place in sorted(read.keys() & written):
        raise UserError(f"{read[place]} would be read from and written to; {cure}")
    for inside, around in ((read, written), (written, read)):
        for place, inner in sorted(inside.items()):
            if outer := next((around[parent] for parent in place.parents if parent in around), None):
                raise UserError(f"{inner} lies within {outer}, so that clips and recordings would mix; {cure}")


def is_recording(path: Path) -> bool:
    """Whether a file is sound by its name, or can be read as sound whatever it is called; hidden ones never are."""
    return is_sound_name(path) or (not path.name.startswith(".") and _is_sound(path))


def is_sound_name(path: Path) -> bool:
    """Whether a file is sound by its suffix, and not hidden."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")


def _is_sound(path: Path) -> bool:
    try:
        open_audio(path).close()
    except UserError:
        return False
    return True
