"""Stage 7, optional: write the retrieval index or the cluster centres for MoeVoiceStudio, beside a model's graph.

Reads   logs/44k/feature_and_index.pkl                  written by train_index.py
        or logs/44k/kmeans_10000.pt                     with --kmeans; written by cluster/train_cluster.py
        checkpoints/<name>/config.json                  for the order of the speakers
Writes  checkpoints/<name>/Index-<place>.index          in the format of faiss, one file per speaker
        or checkpoints/<name>/KMeans.npy                with --kmeans
        checkpoints/<name>.json                         if it exists: says which of them is there

    python export_index_for_onnx.py -n alto
    python export_index_for_onnx.py -n alto --kmeans
    python export_index_for_onnx.py -i logs/alto/feature_and_index.pkl -c logs/alto/config.json --out Models/alto
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import UserError, parse_flags, printable, script

CHECKPOINTS = Path("checkpoints")
INDEX = Path("logs/44k/feature_and_index.pkl")
CENTRES = Path("logs/44k/kmeans_10000.pt")
PUBLISHED_NAME = "crs"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-n", "--model_name", default=PUBLISHED_NAME, help="folder below checkpoints/ (default: %(default)s)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "-i", "--index", type=Path, default=INDEX, help="index file of all speakers (default: %(default)s)"
    )
    kind.add_argument(
        "-k", "--kmeans", type=Path, nargs="?", const=CENTRES, help="export cluster centres (default: %(const)s)"
    )
    add("-c", "--config", type=Path, help="the model's config.json (default: in the model's folder)")
    add("-o", "--out", type=Path, help="output folder, in place of the model's")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    if (args.out or Path(args.model_name)).name in ("", ".."):
        raise UserError(
            f"'{args.out or CHECKPOINTS / args.model_name}' is not named after a model; name the model's folder with "
            "--model_name or --out"
        )
    from onnxexport.metadata import amend_metadata, index_file
    from onnxexport.timbre import export_centres, export_index

    model = CHECKPOINTS / args.model_name
    folder, config = args.out or model, args.config or model / "config.json"
    if not config.is_file():
        raise UserError(f"there is no {config}; put the model's config.json there, or name it with --config")
    if args.kmeans:
        if (index := index_file(folder, 0)).exists():
            raise UserError(f"{folder} has {index.name}, and the host reads one kind of timbre; move its indexes away")
        files, keys = export_centres(args.kmeans, config, folder)
    else:
        files, keys = export_index(args.index, config, folder)
    for path in files:
        print(printable(path))
    amend_metadata(folder.with_name(f"{folder.name}.json"), keys)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
