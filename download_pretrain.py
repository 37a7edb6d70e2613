"""Fetch weight files of other projects into pretrain/, and base models into logs/44k/.

Only what you name is fetched. A stopped download from a web server continues when you start it again. A file is checked
by its publisher's hash if there is one, else by its kind, and later by the hash of the first download. The licences are
at the home pages.

    python download_pretrain.py --list
    python download_pretrain.py --for configs/config.json
    python download_pretrain.py --encoder vec768l12 --f0 rmvpe --base vec768l12
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from downloads.catalog import BASE_MODELS, DIFFUSION_BASES
from modules.console import parse_flags, script
from modules.f0 import F0_PREDICTORS
from vencoder import ENCODERS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    encoders = [key for key, row in ENCODERS.rows.items() if row.weight]
    predictors = [key for key, row in F0_PREDICTORS.rows.items() if row.weight]
    parser.add_argument("--list", action="store_true", help="list all files, and which of them are there")
    parser.add_argument(
        "--for", dest="config", type=Path, metavar="CONFIG",
        help="what a config.json or diffusion.yaml needs: its encoder, rmvpe, and for a YAML the vocoder",
    )  # fmt: skip
    parser.add_argument("--encoder", nargs="+", choices=encoders, default=[], metavar="KEY", help="speech encoders")
    parser.add_argument("--f0", nargs="+", choices=predictors, default=[], metavar="KEY", help="F0 predictors")
    parser.add_argument("--vocoder", action="store_true", help="the vocoder of shallow diffusion and the enhancer")
    parser.add_argument(
        "--base", choices=list(BASE_MODELS), help="base model of the synthesizer; -vol has the loudness embedding"
    )
    parser.add_argument("--diffusion_base", choices=list(DIFFUSION_BASES), help="base model of the diffusion")
    parser.add_argument("--all", action="store_true", help="all encoders, F0 predictors and the vocoder: some 15 GB")
    parser.add_argument(
        "--mirror", metavar="URL|DIR",
        help="fetch from this address or folder, which has the files under their paths in pretrain/, archives under "
        "their names, and base models under their paths at the publisher; HF_ENDPOINT in the environment replaces "
        "huggingface.co alone",
    )  # fmt: skip
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parse_flags(parser, argv)
    from downloads.fetching import Fetcher
    from downloads.selection import list_files, select_files

    if args.list:
        list_files(Fetcher(Path()))
        return 0
    files = select_files(
        args.config, args.encoder, args.f0, args.base, args.diffusion_base, vocoder=args.vocoder, everything=args.all
    )
    if not files:
        parser.error("name what to fetch, such as --encoder vec768l12; --list shows all")
    with Fetcher(Path(), args.mirror) as fetcher:
        return fetcher.fetch_all(files)


if __name__ == "__main__":
    raise SystemExit(main())
