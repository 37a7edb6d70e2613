"""Filelists, one clip a line, as ``preprocess_flist_config.py`` writes them; which of their clips can be used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modules.audio.files import open_audio
from modules.console import LONGEST_VALUE, UserError, get_logger
from modules.data.features import MAKER, ClipFiles
from modules.registry import nearest_first

log = get_logger("dataset")


def read_filelist(path: str | Path) -> list[Path]:
    """The clips of a filelist, one path a line, in memory of some 300 bytes for each beside the file's size.

    Blanks at a line's ends, empty lines, a byte order mark and the line ends of Windows are no part of it. Raises
    UserError when it is missing, empty, or names missing files.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")  # not at the other line ends of Unicode
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; run 'python preprocess_flist_config.py' again") from None
    except FileNotFoundError:
        raise UserError(f"there is no {path}; run 'python preprocess_flist_config.py' first") from None
    clips = [Path(line.split("|")[0].strip().replace("\\", "/")) for line in lines if line.strip()]
    if not clips:
        raise UserError(f"{path} names no clip; run 'python preprocess_flist_config.py' again")
    absent = [clip for clip in clips if not os.path.isfile(clip)]  # also of a name that is too long
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of its {len(clips)} clips are missing, first {str(absent[0])[:LONGEST_VALUE]}; "
            "run 'python preprocess_flist_config.py' again"
        )
    return clips


def usable_clips(
    clips: Sequence[Path], companions: Iterable[str], sampling_rate: int, shortest: int = 0, maker: str = MAKER
) -> list[Path]:
    """The clips that can be read, have these ``companions`` (names in ClipFiles) and ``shortest`` samples or more.

    The others are named in the log, with the reason; ``maker`` is the command that makes companions that are missing.
    Raises UserError when none is left.
    """
    reasons = {}
    for clip in clips:
        if reason := _lack(ClipFiles(clip), companions, maker) or _misfit(clip, sampling_rate, shortest):
            reasons[clip] = reason
    if len(reasons) == len(clips):
        raise UserError(f"none of the {len(clips)} clips can be used, the first because {next(iter(reasons.values()))}")
    for clip, reason in reasons.items():
        log.warning("%s is left out: %s", clip, reason)
    return [clip for clip in clips if clip not in reasons]


def _lack(files: ClipFiles, companions: Iterable[str], maker: str) -> str | None:
    """Which companion a clip lacks, in a sentence."""
    absent = (path for companion in companions if not os.path.exists(path := getattr(files, companion)))
    if path := next(absent, None):
        return f"there is no {path.name}; run '{maker}' again and see what it says"
    return None


def _misfit(clip: Path, sampling_rate: int, shortest: int) -> str | None:
    """Why the sound itself cannot be used, in a sentence."""
    try:
        with open_audio(clip) as file:
            rate, samples = file.samplerate, file.frames
    except UserError as error:
        return str(error)
    if rate != sampling_rate:
        return f"it has {rate} Hz and the config {sampling_rate}; run 'python resample.py' again"
    if samples < shortest:
        return f"it is shorter than a training slice, train.segment_size ({shortest} samples)"
    return None


def speaker_id(clip: Path, speakers: Mapping[str, int]) -> int:
    """The number of the speaker whose folder holds ``clip``. Raises UserError when the configuration has none."""
    name = clip.parent.name
    if name not in speakers:
        known = ", ".join(nearest_first(name, speakers))
        raise UserError(f"the folder of {clip} is no speaker of the config (known: {known}); run stage 2 again")
    return speakers[name]
