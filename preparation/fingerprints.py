"""What a clip's companions were made from, kept beside it as ``X.wav.meta.json``.

The file vouches for each companion that it names: made from this very sound (its BLAKE2 hash), by this recipe (encoder
or predictor, rates, sizes), with this many bytes. It is written after the companions it vouches for, and names them as
unfinished before, so a killed run leaves none that is trusted wrongly.

Companions that it does not name, those of so-vits-svc 4.1 for instance, and those edited since, are kept where they fit
the clip; the fingerprint marks them as kept. A kept F0 stays with any predictor, for people correct F0 by hand; the
others are made anew when their recipe changes. An F0 that cannot be kept and may be somebody's work is renamed to
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
from modules.data.features import COMPANIONS, ClipFiles
from modules.untrusted.json_file import read_json

Recipe = dict[str, Any]  # what one companion is made with, as JSON holds it


Fits = Callable[[ClipFiles, str], bool]  # whether a companion of any origin fits its clip

EDITED = "*.wav.f0.edited.npy"
MISSING, UNKNOWN, UNFINISHED = "missing", "of unknown origin", "unfinished"
OTHER_SETTINGS, DAMAGED, ASKED = "made with other settings", "damaged", "as asked"


@dataclass
class Check:
    """What was found beside a clip: ``stale`` maps each companion to be made to the reason; ``vouched`` is what the
    fingerprint may go on saying of the others; ``outdated`` are those of the sound that the clip had before, which
    nobody has asked for now; ``kept`` are those of other origin, ``adopted`` those that the fingerprint does not yet
    mark so; ``rescued`` says that the F0 to be replaced may be somebody's work."""

    clip: dict[str, Any]
    stale: dict[str, str]
    vouched: dict[str, Any]
    outdated: tuple[str, ...] = ()
    kept: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    rescued: bool = False

    @property
    def reasons(self) -> list[str]:
        """Why each stale companion is made, and what becomes of a rescued F0."""
        note = f" (the F0 that was there is now {EDITED})" if self.rescued else ""
        return [reason + (note if name == "f0" else "") for name, reason in self.stale.items()]


def check(
    files: ClipFiles, recipes: Mapping[str, Recipe], fits: Fits = lambda files, name: False, remake: bool = False
) -> Check:
    """Compare the companions named in ``recipes`` (``units``, ``f0``, ...) with how they should be made now.

    ``fits`` decides about those of unknown origin and those that were edited; ``remake`` makes all stale.
    """
    known = _read(files)
    clip = identify(files.wav, known.get("clip", {}))
    if known and _sound(known.get("clip", {})) != _sound(clip):
        outdated = tuple(name for name in COMPANIONS if name in known and name not in recipes)
        return _with_rescue(Check(clip, dict.fromkeys(recipes, "the clip changed"), {}, outdated), files, known)
    found = Check(clip, {}, {name: entry for name, entry in known.items() if name != "clip"})
    for name, recipe in recipes.items():
        entry = found.vouched.pop(name, None)
        reason = ASKED if remake else _reason(files, name, recipe, entry)
        if reason and _may_be_kept(files, name, reason, entry) and fits(files, name):
            entry, reason = {"bytes": _size(files, name), "recipe": recipe, "kept": True}, None
            found.adopted.append(name)
        if reason:
            found.stale[name] = reason
            continue
        found.vouched[name] = entry
        if entry.get("kept"):
            found.kept.append(name)
    return _with_rescue(found, files, known)


def _with_rescue(found: Check, files: ClipFiles, known: Mapping[str, Any]) -> Check:
    """Mark a check whose stale F0 is not known to be this program's own."""
    entry = known.get("f0", {})
    if "f0" in found.stale and not entry.get("unfinished") and files.f0.exists():
        is_own = entry and not entry.get("kept") and entry.get("blake2b", "") in ("", _digest(files.f0))
        found.rescued = not is_own
    return found


def _reason(files: ClipFiles, name: str, recipe: Recipe, entry: Mapping[str, Any] | None) -> str | None:
    """Why a companion is not what this program made by this recipe; None if it is."""
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
    """Whether a companion may be somebody else's work on this very clip."""
    if reason == UNKNOWN:  # a clip that changed is newer than what was made from it before
        return min(path.stat().st_mtime_ns for path in files.paths(name)) >= files.wav.stat().st_mtime_ns
    if reason == OTHER_SETTINGS:
        return name == "f0" and bool(entry.get("kept") or entry.get("blake2b", "") not in ("", _digest(files.f0)))
    return reason == DAMAGED


def withdraw(files: ClipFiles, found: Check) -> None:
    """Mark as unfinished what is about to be made, rename an F0 that may be somebody's work, and delete what is
    outdated: it would be read as good."""
    if found.rescued:
        files.f0.replace(files.edited_f0)
    for name in found.outdated:
        for path in files.paths(name):
            path.unlink(missing_ok=True)
    _write(files, found.clip, {**found.vouched, **{name: {"unfinished": True} for name in found.stale}})


def vouch(files: ClipFiles, found: Check, recipes: Mapping[str, Recipe]) -> None:
    """Vouch for the companions that were stale, now that they are made by ``recipes``, and mark those that are kept."""
    made = {name: {"bytes": _size(files, name), "recipe": recipes[name]} for name in found.stale}
    if "f0" in made:  # by which one that is edited later is known
        made["f0"]["blake2b"] = _digest(files.f0)
    _write(files, found.clip, {**found.vouched, **made})


def _size(files: ClipFiles, name: str) -> int:
    return sum(path.stat().st_size for path in files.paths(name))


def identify(wav: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Size, time of change, and hash of a clip; the hash is taken over when size and time are those known."""
    status = wav.stat()
    times = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    if times == {key: known.get(key) for key in times} and "blake2b" in known:
        return {**times, "blake2b": known["blake2b"]}
    return {**times, "blake2b": _digest(wav)}


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _sound(clip: Mapping[str, Any]) -> tuple[Any, Any]:
    """What must be equal; times of change do not survive a copy to another machine."""
    return clip.get("bytes"), clip.get("blake2b")


def _read(files: ClipFiles) -> dict[str, Any]:
    """The fingerprint, or nothing when there is none that can be read."""
    try:
        known = read_json(files.fingerprint)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values()) else {}


def _write(files: ClipFiles, clip: Mapping[str, Any], companions: Mapping[str, Any]) -> None:
    write_text(files.fingerprint, json.dumps({"clip": clip, **companions}, indent=1, sort_keys=True) + "\n")
