"""Stage 1: convert the recordings in dataset_raw to clips for training.

Reads   dataset_raw/<speaker>/*    any format and rate that libsndfile reads (wav, flac, ogg, mp3, ...), and with ffmpeg
                                   installed m4a, mp4, aac, wma, webm, ...
Writes  dataset/44k/<speaker>/*.wav    mono, 16 bit, at the rate of --sr2

Silence at both ends is trimmed, and each clip is scaled to full scale unless --skip_loudnorm is given. Clips newer than
their recording are skipped, so a stopped run continues when you start it again. Clips whose recording was deleted are
named; --prune deletes them and their sidecar files. Clips that you added or edited are never deleted. If a recording is
unusable (for instance less than 0.3 s of sound) or its file is truncated, the script names it at the end and exits with
code 1. A truncated recording is named once; later runs skip it.

    python resample.py
    python resample.py --in_dir my_voices --skip_loudnorm --num_processes 4
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from modules.console import UserError, get_logger, parse_flags, script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sr2", type=int, default=44100, metavar="HZ", help="sampling rate of the clips (default: %(default)s)")
    add("--in_dir", default="./dataset_raw", help="folder of speaker folders (default: %(default)s)")
    add("--out_dir2", dest="out_dir", default="./dataset/44k", metavar="OUT_DIR2",
        help="folder for the clips (default: %(default)s)")  # fmt: skip
    add("--skip_loudnorm", action="store_true", help="keep the loudness; scale down only clips above full scale")
    add("--prune", action="store_true", help="delete clips whose recording was deleted, and their sidecar files")
    workers = "worker processes; 0: one per CPU (default: all CPUs but two, at least 1; 30 on large machines)"
    add("--num_processes", type=int, metavar="N", help=workers)
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    if not 8000 <= args.sr2 <= 192000:
        raise UserError(f"--sr2 is {args.sr2}; it must be a rate from 8000 to 192000 Hz")
    from preparation.report import count_and_first
    from preparation.resampling import resample_folder

    report = resample_folder(
        args.in_dir, args.out_dir, args.sr2, not args.skip_loudnorm, args.num_processes, args.prune
    )
    log = get_logger("resample").info
    for sentence in report.passed_over + [f"not prepared: {sentence}" for sentence in report.failed]:
        log(sentence)
    for sentence in report.speakers_without_clips:
        log(sentence)
    for sentence in report.cut_off:
        log(f"incomplete: {sentence}")
    if report.gone and args.prune:
        removed = count_and_first(report.gone, "clip")
        log(f"deleted, because their recordings were deleted: {removed}; run preprocess_flist_config.py again")
    elif report.gone:
        log(f"recordings were deleted, clips stay: {count_and_first(report.gone, 'clip')}; --prune deletes them")
    if report.unknown:
        log(
            f"not made from recordings in {args.in_dir}, or edited: "
            f"{count_and_first(report.unknown, 'clip')}; they stay and are used for training unless you delete them"
        )
    log(f"clips made: {report.made}, up to date: {report.up_to_date}, failed: {len(report.failed)}; in {args.out_dir}")
    return 1 if report.failed or report.cut_off or report.speakers_without_clips else 0


if __name__ == "__main__":
    raise SystemExit(main())
