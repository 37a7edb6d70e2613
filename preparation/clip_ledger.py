"""Which clips resample.py has made, and of which recordings: those may go when their recording is gone, others never.

``dataset/44k/.resample_clips.jsonl`` has a line for each, appended when the clip is there, so that a kill costs no more
than the lines of the clips that were just being made. A clip of which the file says nothing, or whose sound is another
than was made, is somebody's own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from modules.atomic_file import write_text
from modules.console import UserError
from modules.data.features import ClipFiles, find_clips
from preparation.fingerprints import identify

LEDGER = ".resample_clips.jsonl"
KEYS = ("clip", "recording", "of", "bytes", "modified_ns", "blake2b")


class ClipLedger:
    """The clips of ``out_dir`` as they were made of recordings in ``in_dir`` and in other folders.

    Raises UserError when the file cannot be read.
    """

    def __init__(self, in_dir: Path, out_dir: Path):
        self.in_dir, self.out_dir, self.path = in_dir, out_dir, out_dir / LEDGER
        self.source = _seen_from(out_dir, in_dir)
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except (OSError, ValueError):
            raise UserError(
                f"{self.path} cannot be read; remove it: then all clips there are taken for your own"
            ) from None
        self.entries: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # the last line, where a kill has cut it off
                entry = json.loads(line)
                self.entries[entry["clip"]] = {key: entry[key] for key in KEYS}
        if not text.endswith("\n") and text:
            self._rewrite()

    def add(self, clip: Path, recording: Path, identity: Mapping[str, Any]) -> None:
        """Note a clip that was made just now; ``identity`` is what ``identify`` says of it."""
        names = {"clip": _name(clip, self.out_dir), "recording": _name(recording, self.in_dir)}
        entry = self.entries[names["clip"]] = {**names, "of": self.source, **identity}
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(entry) + "\n")

    def without_recording(self, expected: Collection[Path]) -> tuple[list[Path], list[Path]]:
        """The clips beside those that are ``expected``, of which there are recordings.

        Returns those that were made of a recording which is no longer in ``in_dir``, and those of unknown origin. Clips
        that were made of recordings in another folder are in neither.
        """
        gone, unknown = [], []
        for clip in (clip for clips in find_clips(self.out_dir).values() for clip in clips if clip not in expected):
            entry = self.entries.get(_name(clip, self.out_dir))
            if entry and entry["of"] != self.source:
                continue
            if entry is None or identify(clip, entry)["blake2b"] != entry["blake2b"]:
                unknown.append(clip)
            elif not os.path.lexists(self.in_dir / entry["recording"]):
                gone.append(clip)
        return gone, unknown

    def prune(self, clips: Iterable[Path]) -> None:
        """Delete clips and all that was made of them, and the folders of speakers that this leaves empty."""
        for clip in clips:
            for path in (*ClipFiles(clip).beside, clip):  # the clip last: by it a run that is killed here goes on
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                clip.parent.rmdir()
            self.entries.pop(_name(clip, self.out_dir), None)
        self._rewrite()

    def _rewrite(self) -> None:
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries.values()))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _seen_from(out_dir: Path, in_dir: Path) -> str:
    """Where the recordings lie as seen from the clips, which a move of the whole project does not change."""
    try:
        return Path(os.path.relpath(in_dir.resolve(), out_dir.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return in_dir.resolve().as_posix()
