"""The ledger of the clips that resample.py made and of their recordings. ``--prune`` deletes only clips in it.

``dataset/44k/.resample_clips.jsonl`` has one line per clip, appended after the clip is written; a killed run loses at
most the lines of the clips that were being made. A clip without a line, or whose hash differs from its line, was added
or edited by the user.
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
    """The clips in ``out_dir`` and the recordings, in ``in_dir`` or other folders, that they were made from.

    Raises UserError if the file cannot be read.
    """

    def __init__(self, in_dir: Path, out_dir: Path):
        self.in_dir, self.out_dir, self.path = in_dir, out_dir, out_dir / LEDGER
        self.source = _seen_from(out_dir, in_dir)
        try:
            text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except (OSError, ValueError):
            raise UserError(
                f"{self.path} cannot be read; remove it: then all clips there count as your own"
            ) from None
        self.entries: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a killed run leaves its last line incomplete
                entry = json.loads(line)
                self.entries[entry["clip"]] = {key: entry[key] for key in KEYS}
        self._is_cut_off = bool(text) and not text.endswith("\n")

    def add(self, clip: Path, recording: Path, identity: Mapping[str, Any]) -> None:
        """Append a clip that was just made; ``identity`` is the result of ``identify``."""
        if self._is_cut_off:
            self._rewrite()
        names = {"clip": _name(clip, self.out_dir), "recording": _name(recording, self.in_dir)}
        entry = self.entries[names["clip"]] = {**names, "of": self.source, **identity}
        with open(self.path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(entry) + "\n")

    def without_recording(self, expected: Collection[Path]) -> tuple[list[Path], list[Path]]:
        """Return the clips whose recording is no longer in ``in_dir``, and the clips of unknown origin.

        ``expected`` are the clips of the present recordings; they are in neither list, and neither are clips made from
        recordings in another folder.
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
        """Delete the clips, their sidecar files, and speaker folders that become empty."""
        for clip in clips:
            for path in (*ClipFiles(clip).beside, clip):  # the clip last, so that a killed run is completed by the next
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                clip.parent.rmdir()
            self.entries.pop(_name(clip, self.out_dir), None)
        self._rewrite()

    def _rewrite(self) -> None:
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries.values()))
        self._is_cut_off = False


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _seen_from(out_dir: Path, in_dir: Path) -> str:
    """Return the path from the clips to the recordings, relative so that the whole project can be moved."""
    try:
        return Path(os.path.relpath(in_dir.resolve(), out_dir.resolve())).as_posix()
    except ValueError:  # different drives on Windows
        return in_dir.resolve().as_posix()
