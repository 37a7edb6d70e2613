"""Stage 0 (optional): cut long recordings at silences into clips for training.

Reads   recordings/<speaker>/*    any format that resample.py reads; a folder of files is one speaker, named as it is
Writes  dataset_raw/<speaker>/<name>_0000.wav ...    mono, 16 bit, at the recording's rate

Silence of half a second stays at a clip's ends, and breaths with it. A stretch of singing without silence is cut where
it is quietest. What is shorter than --min_length joins its neighbour, or is dropped and counted when it stands alone.
Recordings that were cut before are left alone unless they or the settings changed; then their former clips are
replaced. Files that this script did not make are never overwritten. Recordings that cannot be cut, or whose files are
cut off, are named, and the exit code is 1 then. A cut-off one is not named again once its clips are there.

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
    add("--in_dir", default="./recordings", help="one folder for each speaker, or one speaker's (default: %(default)s)")
    add("--out_dir", default="./dataset_raw", help="where the clips go (default: %(default)s)")
    add("--min_length", type=float, default=5, metavar="S", help="shortest clip in seconds (default: %(default)s)")
    add("--max_length", type=float, default=15, metavar="S", help="longest clip in seconds (default: %(default)s)")
    add("--threshold", type=float, default=-40, metavar="DB", help="what is quieter is silence (default: %(default)s)")
    add("--min_interval", type=float, default=300, metavar="MS", help="shortest silence cut at (default: %(default)s)")
    add("--keep_silence", type=float, default=500, metavar="MS", help="kept of it at each end (default: %(default)s)")
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
    log(f"clips made: {report.clips}, {report.seconds:.1f} s together, in {args.out_dir}")
    log(f"recordings cut before and unchanged: {report.up_to_date}; not cut: {len(report.failed)}")
    log(
        f"left out: {report.silent_seconds:.1f} s of silence, and {report.dropped_seconds:.1f} s "
        f"in pieces shorter than {args.min_length:g} s that stand alone ({report.dropped})"
    )
    return 1 if report.failed or report.cut_off or report.speakers_without_clips else 0


if __name__ == "__main__":
    raise SystemExit(main())
