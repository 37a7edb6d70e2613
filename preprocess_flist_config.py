"""Stage 2: split the clips into training and validation, and write the configuration that fits them.

Reads dataset/44k/<speaker>/*.wav (headers only) and configs_template/.
Writes filelists/train.txt, filelists/val.txt, configs/config.json and configs/diffusion.yaml. Clips shorter than 0.3 s
are passed over and named; so are those that cannot be used, and the exit code is 1 then.

    python preprocess_flist_config.py
    python preprocess_flist_config.py --speech_encoder vec256l9 --tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

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
    args = build_parser().parse_args(argv)
    from preparation.configs import CONFIG, DIFFUSION_CONFIG, fitted_configs, load_template, write_configs
    from preparation.filelists import take_inventory, write_filelists
    from vencoder import ENCODERS

    ENCODERS[args.speech_encoder]  # an unknown one is refused before the clips are looked through
    inventory = take_inventory(args.source_dir, load_template(args.tiny).data.sampling_rate)
    configs = fitted_configs(inventory.speakers, args.speech_encoder, vol_aug=args.vol_aug, tiny=args.tiny)
    for path in (args.train_list, args.val_list, CONFIG, DIFFUSION_CONFIG):  # lists and configurations go together:
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # what is in the way is met before one of them is written
    write_filelists(inventory, args.source_dir, args.train_list, args.val_list, args.seed)
    write_configs(*configs, args.train_list, args.val_list)
    return 1 if inventory.unusable else 0


if __name__ == "__main__":
    raise SystemExit(main())
