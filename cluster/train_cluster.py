"""Stage 4, optional: find the cluster centres of each speaker's content units.

Reads   dataset/44k/<speaker>/*.wav.soft.pt    which preprocess_hubert_f0.py makes
Writes  logs/44k/kmeans_10000.pt    up to 10,000 centres per speaker, for inference_main.py -cm -cr

A speaker with fewer frames than that (50 per second) gets one centre per frame.

    python cluster/train_cluster.py
    python cluster/train_cluster.py --dataset my_clips --output logs/my_model --gpu
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # import from the project's folder, not from this package's

from modules.console import UserError, parse_flags, script

CENTRES = 10000
NAME = "kmeans_10000.pt"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="./dataset/44k", help="folder of the speakers (default: %(default)s)")
    add("--output", default="logs/44k", help=f"folder to write {NAME} to (default: %(default)s)")
    add("--gpu", action="store_true", help="compute on the CUDA devices; needs faiss for them (faiss-gpu-cu12)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_flags(build_parser(), argv)
    folder = Path(arguments.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    from cluster.centres import train_cluster_model

    train_cluster_model(arguments.dataset, folder / NAME, CENTRES, arguments.gpu)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
