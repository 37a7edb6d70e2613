"""What a clip's companions were made from, kept beside it as ``X.wav.meta.json``.

The file vouches for each companion that it names: made from this very sound (its BLAKE2 hash), by this recipe (encoder
or predictor, rates, sizes), with this many bytes. It is written after the companions it vouches for, so a killed run
leaves none that is trusted wrongly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.atomic_file import write_text
from modules.clip_files import COMPANIONS, ClipFiles

Recipe = dict[str, Any]  # what one companion is made with, as JSON holds it


@dataclass
class Check:
    """What was found beside a clip: ``stale`` maps each companion to be made to the reason; ``vouched`` is what the
    fingerprint may go on saying of the others; ``outdated`` are those of the sound that the clip had before, which
    nobody has asked for now."""

    clip: dict[str, Any]
    stale: dict[str, str]
    vouched: dict[str, Any]
    outdated: tuple[str, ...] = ()


def check(files: ClipFiles, recipes: Mapping[str, Recipe]) -> Check:
    """Compare the companions named in ``recipes`` (``units``, ``f0``, ...) with how they should be made now."""
    known = _read(files)
    clip = _identify(files, known.get("clip", {}))
    if known and _sound(known.get("clip", {})) != _sound(clip):
        outdated = tuple(name for name in COMPANIONS if name in known and name not in recipes)
        return Check(clip, dict.fromkeys(recipes, "the clip changed"), {}, outdated)
    vouched = {name: entry for name, entry in known.items() if name != "clip"}
    stale = {}
    for name, recipe in recipes.items():
        reason = _reason(files, name, recipe, vouched)
        if reason:
            stale[name] = reason
            vouched.pop(name, None)
    return Check(clip, stale, vouched)


def _reason(files: ClipFiles, name: str, recipe: Recipe, vouched: Mapping[str, Any]) -> str | None:
    if not all(path.exists() for path in files.paths(name)):
        return "missing"
    if name not in vouched:
        return "of unknown origin"
    if vouched[name].get("recipe") != recipe:
        return "made with other settings"
    if vouched[name].get("bytes") != _size(files, name):
        return "damaged"
    return None


def withdraw(files: ClipFiles, found: Check) -> None:
    """Stop vouching for what is about to be made anew, and delete what is outdated: it would be read as good."""
    for name in found.outdated:
        for path in files.paths(name):
            path.unlink(missing_ok=True)
    if files.fingerprint.exists():
        _write(files, found.clip, found.vouched)


def vouch(files: ClipFiles, found: Check, recipes: Mapping[str, Recipe]) -> None:
    """Vouch for the companions that were stale, now that they are made by ``recipes``."""
    made = {name: {"bytes": _size(files, name), "recipe": recipes[name]} for name in found.stale}
    _write(files, found.clip, {**found.vouched, **made})


def _size(files: ClipFiles, name: str) -> int:
    return sum(path.stat().st_size for path in files.paths(name))


def _identify(files: ClipFiles, known: Mapping[str, Any]) -> dict[str, Any]:
    """Size, time of change, and hash of the sound; the hash is taken over when size and time are those known."""
    status = files.wav.stat()
    times = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    if times == {key: known.get(key) for key in times} and "blake2b" in known:
        return {**times, "blake2b": known["blake2b"]}
    digest = hashlib.blake2b(files.wav.read_bytes(), digest_size=16).hexdigest()
    return {**times, "blake2b": digest}


def _sound(clip: Mapping[str, Any]) -> tuple[Any, Any]:
    """What must be equal; times of change do not survive a copy to another machine."""
    return clip.get("bytes"), clip.get("blake2b")


def _read(files: ClipFiles) -> dict[str, Any]:
    """The fingerprint, or nothing when there is none that can be read."""
    try:
        known = json.loads(files.fingerprint.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values()) else {}


def _write(files: ClipFiles, clip: Mapping[str, Any], companions: Mapping[str, Any]) -> None:
    write_text(files.fingerprint, json.dumps({"clip": clip, **companions}, indent=1, sort_keys=True) + "\n")
