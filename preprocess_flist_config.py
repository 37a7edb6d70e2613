"""Stage 2: split the clips into training and validation, and write the configuration that fits them.

Reads dataset/44k/<speaker>/*.wav (headers only) and configs_template/.
Writes filelists/train.txt, filelists/val.txt, configs/config.json and configs/diffusion.yaml.

Clips shorter than 0.3 s, and sound files of another format or in another folder, are skipped and named. If a clip is
unusable, the script names it and exits with code 1. A second run keeps the values that you changed in the two
configurations, and the speaker numbers there or in logs/44k/config.json; --fresh starts from the templates.

    python preprocess_flist_config.py
    python preprocess_flist_config.py --speech_encoder vec256l9 --tiny
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, script
from vencoder import ENCODERS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_list", default="./filelists/train.txt", help="training list (default: %(default)s)")
    parser.add_argument("--val_list", default="./filelists/val.txt", help="validation list (default: %(default)s)")
    parser.add_argument("--source_dir", default="./dataset/44k", help="folder of the speakers (default: %(default)s)")
    parser.add_argument("--speech_encoder", metavar="KEY",
        help=f"{', '.join(ENCODERS.rows)} (default: the former configuration's, else vec768l12)")  # fmt: skip
    parser.add_argument("--vol_aug", action="store_true",
        help="train with loudness embedding and augmentation (later runs keep it; --fresh turns it off)")  # fmt: skip
    parser.add_argument("--tiny", action="store_true",
        help="configure the small model (later runs keep it; --fresh turns it off)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1234, help="seed of the split (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="ignore former configurations and speaker numbers")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from preparation import configs
    from preparation.data_split import take_inventory, write_filelists

    former = (None, None) if args.fresh else configs.load_former()
    encoder = args.speech_encoder or (former[0].model.speech_encoder if former[0] else configs.DEFAULT_ENCODER)
    ENCODERS[encoder]  # refuse an unknown encoder before reading the clips
    tiny = args.tiny or configs.is_tiny(former[0])
    inventory = take_inventory(args.source_dir, configs.load_template(tiny).data.sampling_rate)
    speakers = inventory.speakers if args.fresh else configs.number_speakers(inventory.clips, former[0])
    fitted = configs.fitted_configs(speakers, encoder, vol_aug=args.vol_aug, tiny=tiny, former=former)
    both = configs.CONFIG, configs.DIFFUSION_CONFIG
    # Make all folders first, so that an error stops the run before any of the four files is written.
    for path in (args.train_list, args.val_list, *both):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_filelists(inventory, args.source_dir, args.train_list, args.val_list, args.seed)
    configs.write_configs(*fitted, args.train_list, args.val_list)
    return 1 if inventory.unusable else 0


if __name__ == "__main__":
    raise SystemExit(main())
