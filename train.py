"""Stage 4: train a model on the prepared clips.

Reads configs/config.json, the filelists and the companions that preprocess_hubert_f0.py made.
Writes logs/<model>/: G_<step>.pth, D_<step>.pth, state_<step>.pth, config.json, train.log and TensorBoard events.

    python train.py -c configs/config.json -m 44k
    tensorboard --logdir logs/44k

Stop it whenever you like, with Ctrl-C or a signal: it saves, and the same command goes on from that very step.
Put a base model into logs/<model>/ as G_0.pth and D_0.pth to start from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", default="./configs/config.json", help="configuration (default: %(default)s)")
    parser.add_argument("-m", "--model", required=True, help="name of the run: it lives in logs/<model>")
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:1 or mps (default: the best there is)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from vits.training import train

    return train(arguments.config, arguments.model, arguments.device)


if __name__ == "__main__":
    raise SystemExit(main())
