"""Measure how long the F0 networks take to load, for the first clip and for each later clip, on one CPU core.

Each measurement is a process of its own that loads PyTorch, then builds one predictor and predicts the F0 of every
clip. Times are processor time, which other load hardly affects; each figure is the least of several runs. With
--against, the runs alternate with those of another working tree (``git worktree add``), and the ratios are printed.
The clips are sung by demonstration/singer.py, or are the recordings in a folder. rmvpe and fcpe have random weights of
the published sizes; "fcpe bundled" is the model of the package torchfcpe. The last line is JSON.

    python benchmarks/f0_speed.py
    python benchmarks/f0_speed.py --clips 6 --speech recordings/ --against ../before
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BUNDLED = "fcpe bundled"
PREDICTORS = ("rmvpe", "fcpe", BUNDLED, "crepe")
STEPS = ("load", "first clip", "later clip", "all")
RATE = 44100


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--predictors", nargs="+", choices=PREDICTORS, default=PREDICTORS[:3], help="default: all but crepe"
    )
    parser.add_argument("--clips", type=int, default=6, help="number of clips (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a sung clip (default: %(default)s)")
    parser.add_argument("--speech", type=Path, metavar="DIR", help="take the first clips of this folder")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another working tree of this program")
    parser.add_argument("--measure", nargs=2, metavar=("TREE", "FOLDER"), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure(*map(Path, arguments.measure), arguments.predictors[0])))
        return 0
    sys.path.insert(0, str(ROOT))
    figures = []
    print(f"{'predictor':<13} {'tree':<8}" + "".join(f"{step:>12}" for step in STEPS))
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), arguments)
        for key in arguments.predictors:
            if key in ("rmvpe", "fcpe"):
                write_random_weights(key, Path(folder) / f"{key}.pt")
            else:
                (Path(folder) / "fcpe.pt").unlink(missing_ok=True)
            trees = {"this": ROOT} | ({"against": arguments.against} if arguments.against else {})
            best = least_times(key, Path(folder), trees, arguments.repeats)
            for tree, times in best.items():
                figures.append({"predictor": key, "tree": tree, **times})
                print(f"{key:<13} {tree:<8}" + "".join(f"{times[step]:>11.2f}s" for step in STEPS), flush=True)
            if arguments.against:
                ratios = [best["against"][step] / best["this"][step] for step in STEPS]
                print(f"{'':<13} {'ratio':<8}" + "".join(f"{ratio:>12.2f}" for ratio in ratios), flush=True)
    print(json.dumps({"benchmark": "f0_speed", "clips": arguments.clips, "figures": figures}))
    return 0


def write_clips(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the clips as ``0.npy``, ``1.npy``, ...: ``(L,)`` float32 at 44.1 kHz."""
    import numpy as np

    from demonstration.singer import Voice, random_phrase, sing
    from modules.audio.files import read_audio

    for number in range(arguments.clips):
        if arguments.speech:
            audio, _ = read_audio(sorted(arguments.speech.glob("*.wav"))[number], RATE)
        else:
            rng = np.random.default_rng(number)
            audio = sing(Voice(), random_phrase(rng, arguments.seconds, 52, 67), number).audio
        np.save(folder / f"{number}.npy", audio)


def write_random_weights(key: str, path: Path) -> None:
    """Write a file of random weights of the published size for ``rmvpe`` or ``fcpe``; they are as fast as real ones."""
    import torch

    from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
    from modules.f0.rmvpe_network import RmvpeNetwork

    torch.manual_seed(0)
    network = RmvpeNetwork() if key == "rmvpe" else FcpeNetwork(FcpeSizes())
    torch.save({"config": {}, "model": network.state_dict()}, path)


def least_times(key: str, folder: Path, trees: dict[str, Path], repeats: int) -> dict[str, dict[str, float]]:
    """Return for each tree the least processor seconds of each step."""
    runs = {tree: [] for tree in trees}
    for _ in range(repeats):
        for tree, root in trees.items():
            command = [sys.executable, __file__, "--predictors", key, "--measure", root.resolve(), folder]
            done = subprocess.run(
                command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True
            )
            runs[tree].append(json.loads(done.stdout.splitlines()[-1]))
    return {tree: {step: min(run[step] for run in times) for step in STEPS} for tree, times in runs.items()}


def measure(root: Path, folder: Path, key: str) -> dict[str, float]:
    """Return the processor seconds of each step in the tree ``root``, with the clips and weights in ``folder``."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    sys.path[0] = str(root)  # in place of benchmarks/
    clips = [np.load(path) for path in sorted(folder.glob("*.npy"))]
    marks = [time.process_time()]
    from modules.f0 import build_f0_predictor

    predictor = build_f0_predictor(key.split()[0], RATE, folder=folder)
    marks.append(time.process_time())
    for clip in clips:
        predictor(clip)
        marks.append(time.process_time())
    steps = np.diff(marks)
    return {"load": steps[0], "first clip": steps[1], "later clip": steps[2:].mean(), "all": steps.sum()}


if __name__ == "__main__":
    raise SystemExit(main())
