"""Where the original program's numbers lie: in full in a folder, or in the compact form in ``tests/parity_data/``.

Both hold fixtures, each a call of the original: ``meta`` has its constructor arguments, seed and tolerances, and
there are the call's inputs and its outputs. ``e2e`` is the whole song: its conversions by the original program.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.projections import Projections

Outputs = dict[str, "np.ndarray | Projections"]
SONG = "e2e"  # the name of the fixture of whole conversions
WHOLE = 128  # elements; in 32 bits they take as much room as 64 projections


class FullFixtures:
    """A folder with ``fixtures/<name>.json`` and ``.npz``, arrays called ``in_...`` and ``out_...``, and ``e2e/``.

    Raises FileNotFoundError for a folder without fixtures: no test is left out silently.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not self.names():
            raise FileNotFoundError(f"there are no fixtures in {folder / 'fixtures'}")
        self.song = folder / SONG / "song.wav"

    def names(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "fixtures").glob("*.json"))

    def meta(self, name: str) -> dict[str, Any]:
        return json.loads(self._path(name, "json").read_text(encoding="utf-8"))

    def inputs(self, name: str) -> dict[str, np.ndarray]:
        return self._arrays(name, "in_")

    def outputs(self, name: str) -> Outputs:
        return self._arrays(name, "" if name == SONG else "out_")

    def _arrays(self, name: str, prefix: str) -> dict[str, np.ndarray]:
        with np.load(self._path(name, "npz")) as arrays:
            return {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / (SONG if name == SONG else "fixtures") / f"{name}.{suffix}"


class CompactFixtures:
    """What ``python -m tests.parity.compact`` writes.

    ``fixtures.json`` holds for each fixture its ``meta``, the keys of its inputs in ``inputs.npz``, and the shapes of
    its outputs. ``outputs.npz`` holds short outputs whole, of longer ones the norm and then the projections.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.song = folder / "song.wav"

    def names(self) -> list[str]:
        return sorted(self._index.keys() - {SONG})

    def meta(self, name: str) -> dict[str, Any]:
        return json.loads(json.dumps(self._index[name]["meta"]))  # a copy of its own

    def inputs(self, name: str) -> dict[str, np.ndarray]:
        return {key: self._arrays("inputs")[content] for key, content in self._index[name]["inputs"].items()}

    def outputs(self, name: str) -> Outputs:
        return {key: self._output(f"{name}/{key}", shape) for key, shape in self._index[name]["outputs"].items()}

    def _output(self, key: str, shape: list[int] | None) -> np.ndarray | Projections:
        array = self._arrays("outputs")[key]
        return array if shape is None else Projections(tuple(shape), float(array[0]), array[1:])

    @functools.cached_property
    def _index(self) -> dict[str, dict[str, Any]]:
        return json.loads((self.folder / "fixtures.json").read_text(encoding="utf-8"))

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def _arrays(self, name: str) -> Mapping[str, np.ndarray]:
        return np.load(self.folder / f"{name}.npz")
