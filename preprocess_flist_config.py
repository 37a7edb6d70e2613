"""Stage 2: split the clips into training and validation, and write the configuration that fits them.

Reads dataset/44k/<speaker>/*.wav (headers only) and configs_template/.
Writes filelists/train.txt, filelists/val.txt, configs/config.json and configs/diffusion.yaml. Clips shorter than 0.3 s
are passed over and named, and so is sound of another format or in another place; so are clips that cannot be used, and
the exit code is 1 then.

A second run keeps what you changed in the two configurations, and the numbers that speakers have there or in
logs/44k/config.json; --fresh starts from the templates.

    python preprocess_flist_config.py
    python preprocess_flist_config.py --speech_encoder vec256l9 --tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_list", default="./filelists/train.txt", help="training list (default: %(default)s)")
    parser.add_argument("--val_list", default="./filelists/val.txt", help="validation list (default: %(default)s)")
    parser.add_argument("--source_dir", default="./dataset/44k", help="folder of the speakers (default: %(default)s)")
    parser.add_argument("--speech_encoder", help="speech encoder (default: the former configuration's, else vec768l12)")
    parser.add_argument("--vol_aug", action="store_true",
        help="train with loudness embedding and augmentation (later runs keep it; --fresh turns it off)")  # fmt: skip
    parser.add_argument("--tiny", action="store_true",
        help="the small model's configuration (later runs keep it; --fresh turns it off)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1234, help="of the split (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget former configurations and speaker numbers")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from preparation import configs
    from preparation.data_split import take_inventory, write_filelists
    from vencoder import ENCODERS

    former = (None, None) if args.fresh else configs.load_former()
    encoder = args.speech_encoder or (former[0].model.speech_encoder if former[0] else configs.DEFAULT_ENCODER)
    ENCODERS[encoder]  # an unknown one is refused before the clips are looked through
    tiny = args.tiny or configs.is_tiny(former[0])
    inventory = take_inventory(args.source_dir, configs.load_template(tiny).data.sampling_rate)
    speakers = inventory.speakers if args.fresh else configs.number_speakers(inventory.clips, former[0])
    fitted = configs.fitted_configs(speakers, encoder, vol_aug=args.vol_aug, tiny=tiny, former=former)
    both = configs.CONFIG, configs.DIFFUSION_CONFIG
    # Make all folders first, so that an obstacle stops the run before any of the four files is written.
    for path in (args.train_list, args.val_list, *both):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_filelists(inventory, args.source_dir, args.train_list, args.val_list, args.seed)
    configs.write_configs(*fitted, args.train_list, args.val_list)
    return 1 if inventory.unusable else 0


if __name__ == "__main__":
    raise SystemExit(main())
