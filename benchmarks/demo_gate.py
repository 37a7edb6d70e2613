"""Check that the demo meets its goals with any seed, CPU kernels and number of threads.

    python benchmarks/demo_gate.py
    python benchmarks/demo_gate.py --seeds 1 2 3 --kernels default avx512 --threads 1 2

The demo's data are prepared once. For each combination the script trains the demo's synthesizer, converts the demo's
song and prints the figures that have a goal. ``--kernels`` are values of PyTorch's ATEN_CPU_CAPABILITY (oneDNN chooses
its own), ``--threads`` numbers of OpenMP threads. A run takes as long as the demo's training. Below the table, each
figure has its mean, its spread (largest minus smallest), the goal, and the distance of the worst run from the goal in
units of the spread. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import demo
from modules.console import script

KERNELS = ("default", "avx2", "avx512")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1234, 1, 2, 3, 4], help="(default: %(default)s)")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS, help="(default: all)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=demo.STEPS, help="training steps (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    figures = []
    with tempfile.TemporaryDirectory() as name:
        prepared = Path(name) / "prepared"
        source, target = demo.record(prepared)
        demo.prepare(prepared)
        for kernels, threads, seed in itertools.product(args.kernels, args.threads, args.seeds):
            os.environ |= {"ATEN_CPU_CAPABILITY": kernels, "OMP_NUM_THREADS": str(threads)}
            report = measure_run(prepared, Path(name) / "run", source, target, seed, args.steps)
            place = {"kernels": kernels, "threads": threads, "seed": seed}
            figures.append(place | report.figures() | {"missed": report.missed()})
            print(json.dumps(figures[-1]), flush=True)
    summarize(figures)
    print(json.dumps({"benchmark": "demo_gate", "runs": figures}))
    return 0


def measure_run(prepared: Path, folder: Path, source, target, seed: int, steps: int):
    """Train in a copy of the prepared folder, convert the song and return its Report."""
    from demonstration.report import measure
    from modules.audio.files import read_audio

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    demo.train_voices(folder, steps, seed)
    demo.run(folder, "inference_main.py", *demo.CONVERT)
    output, rate = read_audio(folder / "results" / demo.RESULT)
    return measure(output, source.audio, target.audio, source.f0, rate)


def summarize(figures: list[dict]) -> None:
    """Print mean, spread, goal and room of each figure that has a goal."""
    from demonstration.report import LEAST_CORRELATION, MOST_DISTANCE, MOST_VOICING_ERROR

    goals = {  # the goal, and 1 for an upper limit, -1 for a lower limit
        "correlation": (LEAST_CORRELATION, -1),
        "voicing_error": (MOST_VOICING_ERROR, 1),
        "distance": (MOST_DISTANCE, 1),
        "nearer_to_target": (0.0, -1),
    }
    print(f"{'':22s}{'mean':>8s}{'worst':>8s}{'spread':>8s}{'goal':>8s}{'room / spread':>15s}")
    for name, (goal, sign) in goals.items():
        values = [run[name] for run in figures]
        worst = max(values, key=lambda value: sign * value)
        spread = max(values) - min(values)
        room = sign * (goal - worst) / spread if spread else float("inf")
        mean = sum(values) / len(values)
        print(f"{name:22s}{mean:8.3f}{worst:8.3f}{spread:8.3f}{goal:8.3f}{room:15.2f}")
    print(f"runs that miss a goal: {sum(bool(run['missed']) for run in figures)} of {len(figures)}")


if __name__ == "__main__":
    raise SystemExit(main())
