"""Fingerprints ``X.wav.meta.json``: what each sidecar file of a clip was made from, to find those that are stale.

The fingerprint stores the clip's BLAKE2 hash and, for each sidecar file, its recipe (encoder or predictor, rates,
sizes) and its size in bytes. It marks files as unfinished before they are made and as valid afterwards, so a file that
a killed run leaves is made anew.

Files without an entry (from so-vits-svc 4.1, for instance) and edited files are kept if they match the clip; the
fingerprint marks them as kept. A kept F0 stays valid with any predictor, because users correct F0 by hand; other kept
files are made anew when their recipe changes. An F0 that cannot be kept and may be edited by hand is renamed to
``X.wav.f0.edited.npy``, not overwritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.atomic_file import write_text
from modules.data.features import SIDECARS, ClipFiles
from modules.untrusted.json_file import read_json

Recipe = dict[str, Any]  # what a sidecar file is made with; JSON values
Matches = Callable[[ClipFiles, str], bool]  # whether a sidecar file of any origin matches its clip

EDITED = "*.wav.f0.edited.npy"
# Reasons to make files anew; the log says "made 3 files that were missing".
MISSING, UNKNOWN, UNFINISHED = "that were missing", "of unknown origin", "that were unfinished"
OTHER_SETTINGS, DAMAGED, REQUESTED = "that had other settings", "that were damaged", "as requested"
CHANGED_CLIP = "of changed clips"


@dataclass
class Check:
    """The state of a clip's sidecar files.

    ``stale`` maps each kind of file to be made to the reason; ``valid`` are the fingerprint's entries of the others;
    ``outdated`` are the kinds that belong to the clip's former sound and are not made now; ``kept`` are the kinds of
    other origin, ``newly_kept`` those of them that the fingerprint does not mark yet; ``backs_up_f0`` is set if the F0
    to be replaced may be edited by hand.
    """

    clip: dict[str, Any]
    stale: dict[str, str]
    valid: dict[str, Any]
    outdated: tuple[str, ...] = ()
    kept: list[str] = field(default_factory=list)
    newly_kept: list[str] = field(default_factory=list)
    backs_up_f0: bool = False

    @property
    def reasons(self) -> list[str]:
        """The reason for each stale file, with a note if the former F0 is renamed."""
        note = f" (the former F0 is now {EDITED})" if self.backs_up_f0 else ""
        return [reason + (note if name == "f0" else "") for name, reason in self.stale.items()]


def check(
    files: ClipFiles, recipes: Mapping[str, Recipe], matches: Matches = lambda files, name: False, remake: bool = False
) -> Check:
    """Compare the sidecar files with the ``recipes``, by kind (``units``, ``f0``, ...).

    ``matches`` decides whether files of unknown origin and edited files are kept; ``remake`` makes all stale.
    """
    known = _read(files)
    clip = identify(files.wav, known.get("clip", {}))
    if known and _content(known.get("clip", {})) != _content(clip):
        outdated = tuple(name for name in SIDECARS if name in known and name not in recipes)
        return _mark_backup(Check(clip, dict.fromkeys(recipes, CHANGED_CLIP), {}, outdated), files, known)
    found = Check(clip, {}, {name: entry for name, entry in known.items() if name != "clip"})
    for name, recipe in recipes.items():
        entry = found.valid.pop(name, None)
        reason = REQUESTED if remake else _reason(files, name, recipe, entry)
        if reason and _may_be_kept(files, name, reason, entry) and matches(files, name):
            entry, reason = {"bytes": _size(files, name), "recipe": recipe, "kept": True}, None
            found.newly_kept.append(name)
        if reason:
            found.stale[name] = reason
            continue
        found.valid[name] = entry
        if entry.get("kept"):
            found.kept.append(name)
    return _mark_backup(found, files, known)


def _mark_backup(found: Check, files: ClipFiles, known: Mapping[str, Any]) -> Check:
    """Set ``backs_up_f0`` if the stale F0 is not an unchanged one that this program made."""
    entry = known.get("f0", {})
    if "f0" in found.stale and not entry.get("unfinished") and files.f0.exists():
        is_own = entry and not entry.get("kept") and entry.get("blake2b", "") in ("", _digest(files.f0))
        found.backs_up_f0 = not is_own
    return found


def _reason(files: ClipFiles, name: str, recipe: Recipe, entry: Mapping[str, Any] | None) -> str | None:
    """Return why a sidecar file has to be made anew; None if this program made it by this recipe."""
    if not all(path.exists() for path in files.paths(name)):
        return MISSING
    if entry is None:
        return UNKNOWN
    if entry.get("unfinished"):
        return UNFINISHED
    if entry.get("recipe") != recipe:
        return OTHER_SETTINGS
    if entry.get("bytes") != _size(files, name):
        return DAMAGED
    return None


def _may_be_kept(files: ClipFiles, name: str, reason: str, entry: Mapping[str, Any] | None) -> bool:
    """Return whether a stale file may come from another program or the user, and belong to this clip."""
    if reason == UNKNOWN:  # a file older than its clip was made from other sound
        return min(path.stat().st_mtime_ns for path in files.paths(name)) >= files.wav.stat().st_mtime_ns
    if reason == OTHER_SETTINGS:
        return name == "f0" and bool(entry.get("kept") or entry.get("blake2b", "") not in ("", _digest(files.f0)))
    return reason == DAMAGED


def invalidate(files: ClipFiles, found: Check) -> None:
    """Mark the stale files as unfinished, rename an F0 that may be edited by hand, and delete outdated files, which
    readers would take for valid."""
    if found.backs_up_f0:
        files.f0.replace(files.edited_f0)
    for name in found.outdated:
        for path in files.paths(name):
            path.unlink(missing_ok=True)
    _write(files, found.clip, {**found.valid, **{name: {"unfinished": True} for name in found.stale}})


def write_fingerprint(files: ClipFiles, found: Check, recipes: Mapping[str, Recipe]) -> None:
    """Enter the files that were stale and are now made by ``recipes``, and mark those that are kept."""
    made = {name: {"bytes": _size(files, name), "recipe": recipes[name]} for name in found.stale}
    if "f0" in made:  # detects later edits
        made["f0"]["blake2b"] = _digest(files.f0)
    _write(files, found.clip, {**found.valid, **made})


def _size(files: ClipFiles, name: str) -> int:
    return sum(path.stat().st_size for path in files.paths(name))


def identify(wav: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return size, modification time and hash of a clip; reuses the ``known`` hash if size and time are unchanged."""
    status = wav.stat()
    times = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    if times == {key: known.get(key) for key in times} and "blake2b" in known:
        return {**times, "blake2b": known["blake2b"]}
    return {**times, "blake2b": _digest(wav)}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _content(clip: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the values to compare. Modification times are left out because copies do not preserve them."""
    return clip.get("bytes"), clip.get("blake2b")


def _read(files: ClipFiles) -> dict[str, Any]:
    """Read the fingerprint; empty if it is missing or unreadable."""
    try:
        known = read_json(files.fingerprint)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values()) else {}


def _write(files: ClipFiles, clip: Mapping[str, Any], sidecars: Mapping[str, Any]) -> None:
    write_text(files.fingerprint, json.dumps({"clip": clip, **sidecars}, indent=1, sort_keys=True) + "\n")
