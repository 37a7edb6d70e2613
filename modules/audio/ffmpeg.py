"""Audio formats that libsndfile does not read (m4a, mp4, aac, wma, webm), decoded by ffmpeg if it is installed."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from modules.console import UserError

SUFFIXES = frozenset(".3gp .aac .ac3 .amr .m4a .m4b .mka .mkv .mov .mp4 .webm .wma".split())

# Positions and bytes that identify such files; names do not, because downloads are often called mp3 or wav.
SIGNATURES = (
    (4, b"ftyp"),  # MP4 and related formats: m4a, mov, 3gp
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # ASF: wma
    (0, b"wvpk"),  # WavPack
    (0, b"MAC "),  # Monkey's Audio
    (0, b"TTA1"),
    (0, b"#!AMR"),
)

NO_TRACK = "matches no streams"  # in ffmpeg's message if there is no audio track; general advice follows it


def is_needed(path: str | os.PathLike) -> bool:
    """Return whether a file needs ffmpeg, by its suffix or its first bytes. Raises OSError when it cannot be read."""
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return True
    with open(path, "rb") as file:
        start = file.read(16)
    return any(start.startswith(sign, place) for place, sign in SIGNATURES)


def decode_to_wav(path: str | os.PathLike) -> Path:
    """Decode the first audio track of ``path`` and return the WAV file.

    The file is deleted when another one is decoded or the process ends. Raises UserError when ffmpeg is
    missing or cannot decode the file.
    """
    status = os.stat(path)
    folder = _decode(os.fspath(path), status.st_size, status.st_mtime_ns)
    return Path(folder.name) / "decoded.wav"


@functools.lru_cache(maxsize=1)
def _decode(path: str, size: int, changed: int) -> tempfile.TemporaryDirectory:
    """Decode into a new folder. ``size`` and ``changed`` make the cache decode a file again after a change."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError(f"{path} needs ffmpeg to be read; install it (ffmpeg.org), or export the file as wav or flac")
    folder = tempfile.TemporaryDirectory(prefix="decoded-")
    # Only local files: a playlist must not fetch anything. RF64 for more than WAV's 4 GiB.
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:a:0",
               "-c:a", "pcm_f32le", "-rf64", "auto", "-f", "wav", os.path.join(folder.name, "decoded.wav")]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        folder.cleanup()
        if NO_TRACK in done.stderr:
            raise UserError(f"{path} holds no sound track; it may be a video without sound")
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{path} cannot be read: ffmpeg reports '{lines[-1].removeprefix(f'file:{path}: ')}'")
    return folder
