"""Stage 2: split the clips into training and validation, and write the configuration that fits them.

Reads dataset/44k/<speaker>/*.wav (headers only) and configs_template/.
Writes filelists/train.txt, filelists/val.txt, configs/config.json and configs/diffusion.yaml.

    python preprocess_flist_config.py
    python preprocess_flist_config.py --speech_encoder vec256l9 --tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_list", default="./filelists/train.txt", help="training list (default: %(default)s)")
    parser.add_argument("--val_list", default="./filelists/val.txt", help="validation list (default: %(default)s)")
    parser.add_argument("--source_dir", default="./dataset/44k", help="folder of the speakers (default: %(default)s)")
    parser.add_argument("--speech_encoder", default="vec768l12", help="speech encoder (default: %(default)s)")
    parser.add_argument("--vol_aug", action="store_true", help="train with loudness embedding and augmentation")
    parser.add_argument("--tiny", action="store_true", help="the small model's configuration")
    parser.add_argument("--seed", type=int, default=1234, help="of the split (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from preparation.configs import fitted_configs, write_configs
    from preparation.filelists import write_filelists
    from vencoder import ENCODERS

    ENCODERS[arguments.speech_encoder]  # an unknown one is refused before anything is written
    inventory = write_filelists(arguments.source_dir, arguments.train_list, arguments.val_list, arguments.seed)
    config, diffusion = fitted_configs(
        inventory.speakers, arguments.speech_encoder, vol_aug=arguments.vol_aug, tiny=arguments.tiny
    )
    write_configs(config, diffusion, arguments.train_list, arguments.val_list)
    return 1 if inventory.unreadable else 0


if __name__ == "__main__":
    raise SystemExit(main())
