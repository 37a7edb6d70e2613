"""Read filelists, one clip per line, as ``preprocess_flist_config.py`` writes them, and select usable clips."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modules.audio.files import open_audio
from modules.console import LONGEST_VALUE, UserError, get_logger
from modules.data.features import MAKER, ClipFiles
from modules.registry import nearest_first
from modules.untrusted.text_file import read_text

log = get_logger("dataset")


def read_filelist(path: str | Path) -> list[Path]:
    """Read the clips of a filelist, one path per line; needs about 300 bytes per clip beside the file's size.

    Ignores blanks at the ends of lines, empty lines, a byte order mark and Windows line ends. Raises UserError when
    the filelist is missing, empty, or names missing files.
    """
    try:
        lines = read_text(path).split("\n")  # only at \n, not at other Unicode line ends
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8 text; save it as UTF-8, or run 'python preprocess_flist_config.py' again"
        ) from None
    except FileNotFoundError:
        raise UserError(f"there is no {path}; run 'python preprocess_flist_config.py' first") from None
    clips = [Path(line.split("|")[0].strip().replace("\\", "/")) for line in lines if line.strip()]
    if not clips:
        raise UserError(f"{path} names no clip; run 'python preprocess_flist_config.py' again")
    absent = [clip for clip in clips if not os.path.isfile(clip)]  # also if the name is too long
    if absent:
        raise UserError(
            f"{path}: {len(absent)} of its {len(clips)} clips are missing, first {str(absent[0])[:LONGEST_VALUE]}; "
            "run 'python preprocess_flist_config.py' again"
        )
    return clips


def usable_clips(
    clips: Sequence[Path], sidecars: Iterable[str], sampling_rate: int, shortest: int = 0, maker: str = MAKER
) -> list[Path]:
    """Return the readable clips with these ``sidecars`` (names in ClipFiles) and at least ``shortest`` samples.

    Logs each other clip with the reason; ``maker`` is the command that makes missing sidecar files. Raises UserError
    when no clip is left.
    """
    reasons = {}
    for clip in clips:
        flaw = _find_missing(ClipFiles(clip), sidecars, maker) or _find_audio_flaw(clip, sampling_rate, shortest)
        if flaw:
            reasons[clip] = flaw
    if len(reasons) == len(clips):
        raise UserError(f"none of the {len(clips)} clips can be used, the first because {next(iter(reasons.values()))}")
    for clip, reason in reasons.items():
        log.warning("%s is left out: %s", clip, reason)
    return [clip for clip in clips if clip not in reasons]


def _find_missing(files: ClipFiles, sidecars: Iterable[str], maker: str) -> str | None:
    """Return a message if a sidecar file of the clip is missing, else None."""
    absent = (path for sidecar in sidecars if not os.path.exists(path := getattr(files, sidecar)))
    if path := next(absent, None):
        return f"there is no {path.name}; run '{maker}' again and read its messages"
    return None


def _find_audio_flaw(clip: Path, sampling_rate: int, shortest: int) -> str | None:
    """Return a message if the audio cannot be used, else None."""
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
    """Return the id of the speaker whose folder holds ``clip``. Raises UserError when ``speakers`` lacks it."""
    name = clip.parent.name
    if name not in speakers:
        known = ", ".join(nearest_first(name, speakers))
        raise UserError(f"the folder of {clip} is no speaker of the config (known: {known}); run stage 2 again")
    return speakers[name]
