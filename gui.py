"""Live voice changer: the microphone in the voice of a trained model, with a known delay.

Without --file it opens a window: choose input, output and model, and press Start. It needs
'pip install -r requirements-realtime.txt', and headphones, so that the microphone does not hear the result.

With --file it converts a recording exactly as the sound card would, writes what would be heard, delay included, and
prints the delays, the time that each stage takes, and gaps that a computer of this speed would leave.

    python gui.py
    python gui.py -m logs/44k/G_8000.pth -s alto -t 12 --block 0.15
    python gui.py --file song.wav --out live.wav --block 0.25
    python gui.py --list_devices
    python gui.py --input USB --output 5 --fixed_delay 0.5      a constant delay, for video
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inference.conversion import Conversion
from inference.precision import PRECISIONS
from modules.console import UserError, option, parse_flags, script
from modules.f0 import list_predictors

if TYPE_CHECKING:
    from live.settings import Settings


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model_path", help="generator checkpoint (default: the newest G_*.pth of logs/44k)")
    add("-c", "--config_path", help="its config (default: the config.json beside the model)")
    add("-s", "--spk_list", dest="spk", metavar="SPEAKER", help="name or id (default: the model's first)")
    add("-t", "--trans", dest="tran", type=float, default=0, metavar="SEMITONES", help="shift (%(default)s)")
    add("-f0p", "--f0_predictor", default="fcpe", metavar="KEY",
        help=f"{list_predictors()}; pm is the fastest (%(default)s)")  # fmt: skip
    add("-ft", "--f0_filter_threshold", dest="cr_threshold", type=float, default=Conversion.cr_threshold,
        metavar="CERTAINTY", help="rmvpe, fcpe, crepe: frames below it are unvoiced (%(default)s)")  # fmt: skip
    add("-sd", "--slice_db", type=float, default=-50, metavar="DB",
        help="quieter sound is silence, for which nothing is computed (%(default)s)")  # fmt: skip
    add("-ns", "--noice_scale", type=float, default=Conversion.noice_scale,
        help="noise in the voice: articulation against quality (%(default)s)")  # fmt: skip
    add("--seed", type=int, default=Conversion.seed, help="of all random numbers (%(default)s)")
    add("-d", "--device", help="cpu, cuda, cuda:1, mps (default: the fastest available)")
    add("--precision", choices=PRECISIONS, default="auto",
        help="of decoder and encoder; auto: the fastest without audible error (%(default)s)")  # fmt: skip
    add("--block", type=float, default=0.25, metavar="S",
        help="seconds that are converted at once, 0.03 to 5; fewer: less delay, more work (%(default)s)")  # fmt: skip
    add("--fixed_delay", type=float, metavar="S",
        help="constant seconds from input to output, up to 10 (default: as short as this computer allows)")  # fmt: skip
    add("--input", help="number or part of the name of the input (default: the system's)")
    add("--output", help="number or part of the name of the output (default: the system's)")
    add("--list_devices", action="store_true", help="print the sound devices, and do nothing else")
    add("--file", type=Path, metavar="WAV", help="convert this recording as the sound card would")
    add("--out", type=Path, metavar="WAV", help="what would be heard of --file")
    return parser


def read_settings(args: argparse.Namespace) -> Settings:
    """Read the settings from the flags. Raises UserError for a value out of range."""
    from live.settings import Settings

    conversion = Conversion(
        args.spk or "",
        args.tran,
        args.slice_db,
        noice_scale=args.noice_scale,
        f0_predictor=args.f0_predictor,
        cr_threshold=args.cr_threshold,
        seed=args.seed,
    )
    return Settings(
        conversion,
        args.model_path or "",
        args.config_path or "",
        args.input or "",
        args.output or "",
        args.block,
        args.fixed_delay,
        args.device,
        args.precision,
    )


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    if bool(args.file) != bool(args.out):
        raise UserError(f"{option('file')} and {option('out')} belong together; give both or none")
    if args.list_devices:
        from live.sound_card import list_devices

        print("\n".join(device.describe() for device in list_devices()) or "this computer has no sound device")
        return 0
    settings = read_settings(args)
    if args.file:
        return convert_recording(args, settings)
    from live.window import open_window

    return open_window(settings)


def convert_recording(args: argparse.Namespace, settings: Settings) -> int:
    """Convert --file to --out and print the table."""
    from live.file_run import convert_file
    from live.report import table

    if args.out.exists() and args.out.samefile(args.file):
        raise UserError(f"{args.out} would be written over the recording; choose another name for {option('out')}")
    converter = settings.build_converter(settings.load_model())
    session = convert_file(converter, args.file, args.out, settings.fixed_delay)
    print(table(session, converter))
    print(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
