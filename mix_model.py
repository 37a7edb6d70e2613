"""Stage 6: mix the voices of several generators into a new one.

Reads two or more models of the same encoder and size, compares the config.json beside each, and writes a mix of their
weights. The mix converts with the config.json of any of them, and loads in so-vits-svc 4.1 as well.

    python mix_model.py -m a/G_8000.pth b/G_6000.pth
    python mix_model.py -m a.pth b.pth c.safetensors -w 50 30 20 --mode linear -o mixed.pth
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, printable, script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--models", dest="paths", nargs="+", type=Path, required=True, metavar="MODEL",
        help="generators, .pth or .safetensors")  # fmt: skip
    add("-w", "--weights", nargs="+", type=float, metavar="PERCENT", help="0 to 100 for each (default: equal shares)")
    add("--mode", choices=("convex", "linear"), default="convex",
        help="linear: the weights as given; convex: their softmax, which is never 0 (%(default)s)")  # fmt: skip
    add("-o", "--output", type=Path, default=Path("output.pth"), help="file to write (%(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from vits.mixing import mix_models

    weights = args.weights or [100 / len(args.paths)] * len(args.paths)
    shares = mix_models(args.paths, weights, args.mode, args.output)
    terms = " + ".join(f"{share:.3f} {path}" for share, path in zip(shares, args.paths, strict=True))
    print(printable(f"{args.output}: {terms}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
