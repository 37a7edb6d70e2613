"""Stage 6: write a smaller checkpoint to keep or to share. It converts as before, but cannot resume training.

Reads a generator and its config. Writes <name>_release.pth beside it, or <name>_release_half.pth with -hf, and prints
the sizes before and after. The file loads in so-vits-svc 4.1 as well. Share its config.json with it.

    python compress_model.py -i logs/44k/G_8000.pth
    python compress_model.py -c configs/config.json -i logs/44k/G_8000.pth -o singer.pth -hf
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, printable, script

CONFIG = Path("configs/config.json")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, help=f"its config (default: the one beside it, else {CONFIG})")
    parser.add_argument("-i", "--input", type=Path, required=True, help="generator, G_<step>.pth")
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: <input>_release[_half].pth)")
    parser.add_argument("-hf", "--half", action="store_true", help="half precision: half the size, nearly the same")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from modules.config import load_config
    from vits.compression import compress, release_path

    beside = args.input.with_name("config.json")
    config = load_config(args.config or (beside if beside.is_file() else CONFIG))
    output = args.output or release_path(args.input, half=args.half)
    compress(args.input, config, output, half=args.half)
    before, after = (path.stat().st_size / 1e6 for path in (args.input, output))
    print(printable(f"{output}: {after:.1f} MB, of {args.input}'s {before:.1f} MB ({after / before:.0%})"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
