"""Stage 4, optional: build each speaker's index of content units for feature retrieval.

Reads   configs/config.json for the speakers, and dataset/44k/<speaker>/*.wav.soft.pt from preprocess_hubert_f0.py
Writes  logs/44k/feature_and_index.pkl    for inference_main.py -fr -cr

For a speaker with more than 200,000 frames (over an hour), the index holds 10,000 cluster centres instead.

    python train_index.py
    python train_index.py -c logs/my_model/config.json --root_dir my_clips --output_dir logs/my_model
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import UserError, parse_flags, script

NAME = "feature_and_index.pkl"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-c", "--config", default="./configs/config.json", help="config.json with the speakers (default: %(default)s)")
    add("--root_dir", dest="dataset", metavar="ROOT_DIR", default="dataset/44k",
        help="folder of the speakers (default: %(default)s)")  # fmt: skip
    add("--output_dir", default="logs/44k", help=f"folder to write {NAME} to (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    folder = Path(arguments.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file; name a folder")
    from cluster.retrieval import train_feature_index

    train_feature_index(arguments.config, arguments.dataset, folder / NAME)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
