"""Stage 0 (optional): cut long recordings at silences into clips for training.

Reads   recordings/<speaker>/*    any format that resample.py reads; a folder of sound files is one speaker
Writes  dataset_raw/<speaker>/<name>_0000.wav ...    mono, 16 bit, at the recording's rate

Each clip keeps half a second of silence, with breaths, at both ends. A long stretch without silence is cut where it is
quietest. A stretch shorter than --min_length is joined to its neighbour, or dropped if it has none nearby. A later run
skips recordings that are already cut, unless they or the settings changed; then it replaces their clips. Files that
this script did not make are never overwritten. If a recording cannot be cut or its file is truncated, the script names
it and exits with code 1. A truncated recording is named once; later runs skip it.

    python slice_audio.py
    python slice_audio.py --in_dir "my recordings/anna" --max_length 12 --threshold -50
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import get_logger, parse_flags, script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--in_dir", default="./recordings",
        help="folder of speaker folders, or of one speaker's recordings (default: %(default)s)")  # fmt: skip
    add("--out_dir", default="./dataset_raw", help="folder for the clips (default: %(default)s)")
    add("--min_length", type=float, default=5, metavar="S", help="shortest clip in seconds (default: %(default)s)")
    add("--max_length", type=float, default=15, metavar="S", help="longest clip in seconds (default: %(default)s)")
    add("--threshold", type=float, default=-40, metavar="DB", help="quieter sound is silence (default: %(default)s)")
    add("--min_interval", type=float, default=300, metavar="MS", help="shortest silence to cut (default: %(default)s)")
    add("--keep_silence", type=float, default=500, metavar="MS", help="silence kept at each end (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from preparation.cutting import CutSettings, cut_folder

    settings = CutSettings(args.min_length, args.max_length, args.threshold, args.min_interval, args.keep_silence)
    report = cut_folder(args.in_dir, args.out_dir, settings)
    log = get_logger("slice").info
    for sentence in report.passed_over + [f"not cut: {sentence}" for sentence in report.failed]:
        log(sentence)
    for sentence in report.speakers_without_clips:
        log(sentence)
    for sentence in report.cut_off:
        log(f"incomplete: {sentence}")
    log(f"made {report.clips} clips, {report.seconds:.1f} s in total, in {args.out_dir}")
    log(f"recordings that are already cut: {report.up_to_date}; not cut: {len(report.failed)}")
    log(
        f"left out: {report.silent_seconds:.1f} s of silence, and {report.dropped_seconds:.1f} s "
        f"in {report.dropped} isolated stretches shorter than {args.min_length:g} s"
    )
    return 1 if report.failed or report.cut_off or report.speakers_without_clips else 0


if __name__ == "__main__":
    raise SystemExit(main())
