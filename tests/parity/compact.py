"""Make the compact form of the original program's numbers: inputs once each, outputs as projections.

    python -m tests.parity.compact ../parity

reads the folder ``../parity`` (``fixtures/`` and ``e2e/``) and writes ``tests/parity_data/``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import DATA
from tests.parity.fixtures import SONG, WHOLE, FullFixtures
from tests.parity.projections import Projections


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with the full arrays")
    parser.add_argument("-o", "--output", type=Path, default=DATA, help="folder to write (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    write_compact(FullFixtures(args.source), args.output)
    return 0


def write_compact(full: FullFixtures, folder: Path) -> None:
    """Write the fixtures to ``folder``, the whole song only if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {}
    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}
    for name in full.names():
        meta, arrays = full.meta(name), full.inputs(name)
        contents = {key: content_of(array) for key, array in arrays.items()}
        inputs |= {contents[key]: array for key, array in arrays.items()}
        exact = {key for key in full.outputs(name) if tolerance(meta, key) == 0}
        index[name] = {"meta": meta, "inputs": contents}
        index[name]["outputs"] = _add(outputs, name, full.outputs(name), exact)
    if full.song.is_file():
        shutil.copyfile(full.song, folder / full.song.name)
        index[SONG] = {"meta": full.meta(SONG), "inputs": {}}
        index[SONG]["outputs"] = _add(outputs, SONG, full.outputs(SONG))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in index.items())
    (folder / "fixtures.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    np.savez_compressed(folder / "inputs.npz", **inputs)
    np.savez_compressed(folder / "outputs.npz", **outputs)


def content_of(array: np.ndarray) -> str:
    """A name for an array that any other array with the same content gets too."""
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def tolerance(meta: dict[str, Any], output: str) -> float:
    """The relative L2 error that a fixture allows for one of its outputs."""
    return meta.get("tolerance_for", {}).get(output, meta["tolerance"])["rel_l2"]


def _add(
    outputs: dict[str, np.ndarray], name: str, arrays: dict[str, np.ndarray], exact: Iterable[str] = ()
) -> dict[str, list[int] | None]:
    """Add a fixture's arrays to ``outputs``: whole if they are short or ``exact``, else as norm and projections.

    Returns the shapes of those stored as projections, None for those stored whole.
    """
    shapes: dict[str, list[int] | None] = {}
    for key, array in arrays.items():
        whole = array.size <= WHOLE or key in exact
        shapes[key] = None if whole else list(array.shape)
        outputs[f"{name}/{key}"] = array if whole else flat(Projections.of(array))
    return shapes


def flat(projections: Projections) -> np.ndarray:
    """The norm and then the projections, (65,)."""
    return np.append(projections.norm, projections.values)


if __name__ == "__main__":
    raise SystemExit(main())
