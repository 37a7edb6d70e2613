"""Say what is right, wrong and missing in this installation and project, and what to do next.

Reads everything that the stages read: packages, GPU, disk, weight files in pretrain/, recordings, clips, filelists,
configurations, features, runs and models. Writes nothing, except the picture of --data.

Exit code 0: no error (there may be warnings); 1: something is wrong; 2: wrong arguments.

    python doctor.py
    python doctor.py --data data.png
    python doctor.py --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modules.console import parse_flags, printable, script


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-c", "--config", type=Path, default=Path("configs/config.json"), help="configuration (default: %(default)s)")
    add("--in_dir", type=Path, default=Path("dataset_raw"), help="folder of the recordings (default: %(default)s)")
    add("--source_dir", type=Path, default=Path("dataset/44k"), help="folder of the clips (default: %(default)s)")
    add("--data", type=Path, metavar="PNG", help="also listen to the recordings (minutes and lengths, clipping, noise, "
        "DC offset, silence, F0 of each speaker, and files that stand out), and draw them to this picture")  # fmt: skip
    add("--json", action="store_true", help="print the findings as JSON")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    from checkup.examination import as_json, examine, exit_code
    from checkup.finding import conclusion
    from checkup.machine import measure
    from checkup.picture import refuse_target
    from checkup.project import Project

    project, report = Project(args.in_dir, args.source_dir, args.config, args.data), {}
    project.refuse_missing_paths()
    if args.data:
        refuse_target(args.data)
    machine = measure(args.in_dir, args.source_dir)
    project.has_ffmpeg = machine.ffmpeg is not None
    for section, findings in examine(project, machine):
        report[section] = findings
        if not args.json:
            print(f"\n{section}")
            for finding in findings:
                cure = f"\n           -> {printable(finding.cure)}" if finding.cure else ""
                print(f"  {finding.level:7}  {printable(finding.what)}{cure}")
    if args.json:
        import json

        print(json.dumps(as_json(report), indent=1))
    else:
        last = conclusion([finding for findings in report.values() for finding in findings])
        print(f"\n{printable(last)}")
    return exit_code(report)


if __name__ == "__main__":
    raise SystemExit(main())
