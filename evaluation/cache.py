"""Opinions and figures by content, so that a sound is judged once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modules.atomic_file import write_text
from modules.console import get_logger
from modules.untrusted.json_file import read_json

log = get_logger("evaluate")


class Cache:
    """Values for JSON by key, in memory and, with a ``folder``, in a file each."""

    def __init__(self, folder: str | Path | None = None):
        self.folder = None if folder is None else Path(folder)
        self._values: dict[str, Any] = {}

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return the value of ``key``; ``compute`` makes it if the cache lacks it."""
        if key not in self._values:
            found = self._read(key)
            if found is None:
                found = compute()
                self._write(key, found)
            self._values[key] = found
        return self._values[key]

    def _read(self, key: str) -> Any:
        if self.folder is None:
            return None
        try:
            return read_json(self.folder / f"{key}.json")["value"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, key: str, value: Any) -> None:
        if self.folder is None:
            return
        try:
            write_text(self.folder / f"{key}.json", json.dumps({"value": value}) + "\n")
        except OSError as error:
            log.warning("the cache %s cannot be written (%s); the evaluation goes on without it", self.folder, error)
            self.folder = None


def content_key(audio: np.ndarray, *settings: object) -> str:
    """Return the key of what these settings make of the sound (L,): equal for equal samples only."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(audio, np.float32))
    return digest.hexdigest()
