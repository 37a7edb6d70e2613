"""Find the recordings in the speakers' folders."""

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
MOST_NOTES = 5  # in one message
DANGLING = "a link whose target does not exist"


@dataclass(frozen=True)
class Recording:
    speaker: str
    path: Path


def find_recordings(folder: str | Path) -> tuple[list[Recording], list[str]]:
    """Return the recordings in ``folder/<speaker>/`` in alphabetical order, and a sentence for each skipped file.

    A file is a recording if it has the suffix of a sound format, or if libsndfile can read it.
    Raises UserError if the folder does not exist.
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
            notes.append(f"passed over {entry}: {DANGLING}")
        elif is_sound_name(entry):
            notes.append(f"passed over {entry}: it lies beside the speakers' folders; move it into one of them")
    return recordings, notes


def recordings_of(folder: Path, speaker: str) -> tuple[list[Recording], list[str]]:
    """Return the recordings in one speaker's folder, and a sentence for each skipped file."""
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
    """Split recordings by whether all stages can process the names of their clips ``<stem><clip_ending>``.

    Returns the accepted ones, in the given order, and a sentence for each refused one; a refused speaker's folder gets
    one sentence. If two clips would be the same file on some system, the second is refused. ``recordings`` are in the
    order of ``find_recordings``.
    """
    fit, refused, folders = [], {}, {}
    for (speaker, folder), group in itertools.groupby(recordings, key=lambda one: (one.speaker, one.path.parent)):
        flaw = speaker_flaw(speaker) or _collision(speaker, folder, folders)
        if flaw:
            refused[folder] = f"{folder} {flaw}"
            continue
        clips: dict[str, tuple[str, Path]] = {}
        for recording in group:
            path, clip = recording.path, recording.path.stem + clip_ending
            if flaw := clip_flaw(clip) or _collision(clip, path, clips):
                refused[path] = f"{path} {flaw}"
            else:
                fit.append(recording)
    return fit, refused


def _collision(name: str, path: Path, taken: dict[str, tuple[str, Path]]) -> str | None:
    """Return why ``name``, made from ``path``, would be the same file as a name in ``taken``; otherwise enter it there
    and return None."""
    first, owner = taken.setdefault(same_file_key(name), (name, path))
    if owner == path:
        return None
    if first == name:
        return f"has the same name as {owner.name}, so one clip would replace the other; rename one of them"
    return f"and {owner.name} would be one file on Windows or macOS; give one of them another name"


def no_recordings(folder: Path, notes: Sequence[str]) -> UserError:
    """Return the error for a folder without recordings, with the first skipped files."""
    sentence = f"{folder} holds no recordings; put them into {folder / '<speaker>'}, a folder for each voice"
    return UserError(first_few([sentence, *notes], MOST_NOTES + 1))


def first_few(sentences: Sequence[str], most: int = MOST_NOTES) -> str:
    """Join the first ``most`` sentences and state how many more there are."""
    more = f" (and {len(sentences) - most} more)" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more


def speakers_without_clips(folder: Path, speakers: Collection[str]) -> list[str]:
    """Return a sentence for each speaker's folder in ``folder``, or link to one, that is not among ``speakers``, the
    speakers with clips."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = (entry for entry in entries if entry.is_dir() or _is_dangling(entry))
    return [f"no clip was made from {entry}" for entry in sorted(folders) if entry.name not in speakers]


def _is_dangling(entry: Path) -> bool:
    """Return whether the entry is a link without a target, for example to a drive that is not connected."""
    return entry.is_symlink() and not entry.exists()


def refuse_overlapping_folders(in_dir: Path, recordings: Iterable[Recording], out_dir: Path, cure: str) -> None:
    """Raise UserError, with the ``cure``, if clips in ``out_dir/<speaker>`` would lie among the recordings.

    That is the case if, after resolving links, a folder that is read is equal to, inside or around one that is written.
    A later run would treat its own clips as recordings, or overwrite recordings.
    """
    speakers = {recording.speaker for recording in recordings}
    read = {path.resolve(): path for path in {recording.path.parent for recording in recordings} | {in_dir}}
    written = {path.resolve(): path for path in {out_dir / speaker for speaker in speakers} | {out_dir}}
    for folder in sorted(read.keys() & written):
        raise UserError(f"{read[folder]} would be read from and written to; {cure}")
    for inside, around in ((read, written), (written, read)):
        for path, inner in sorted(inside.items()):
            if outer := next((around[parent] for parent in path.parents if parent in around), None):
                raise UserError(f"{inner} lies within {outer}, so that clips and recordings would mix; {cure}")


def is_recording(path: Path) -> bool:
    """Return whether a file is not hidden, and has the suffix of a sound format or is readable by libsndfile."""
    return is_sound_name(path) or (not path.name.startswith(".") and _is_sound(path))


def is_sound_name(path: Path) -> bool:
    """Return whether a file is not hidden and has the suffix of a sound format."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")


def _is_sound(path: Path) -> bool:
    try:
        open_audio(path).close()
    except UserError:
        return False
    return True
