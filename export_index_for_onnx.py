"""Stage 7, optional: write the retrieval index for ONNX hosts, one file per speaker.

Reads   logs/44k/feature_and_index.pkl          written by train_index.py
Writes  checkpoints/<name>/Index-<speaker id>.index    in the format of faiss

    python export_index_for_onnx.py -n alto
    python export_index_for_onnx.py --index logs/my_model/feature_and_index.pkl --out my_model
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, printable, script

CHECKPOINTS = Path("checkpoints")
INDEX = Path("logs/44k/feature_and_index.pkl")
PUBLISHED_NAME = "crs"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-n", "--model_name", default=PUBLISHED_NAME, help="folder below checkpoints/ (default: %(default)s)")
    add("-i", "--index", type=Path, default=INDEX, help="index file of all speakers (default: %(default)s)")
    add("-o", "--out", type=Path, help="output folder, in place of the model's")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from cluster.index_file import export_indexes

    for path in export_indexes(args.index, args.out or CHECKPOINTS / args.model_name):
        print(printable(path))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
