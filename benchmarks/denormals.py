"""Measure how much denormal numbers slow down a training run on a CPU over its course.

    python benchmarks/denormals.py                 # on the clips of the demo, after `make demo`
    python benchmarks/denormals.py my_folder --steps 1000

Trains from random weights on a folder's prepared clips, without the discriminator: once with denormal numbers, and once
with denormal numbers flushed to zero, as ``modules.device.pick_device`` sets on a CPU. Each run has its own process,
because threads keep the setting with which they start. Prints steps per second of processor time, which other load
hardly affects, over the first and the last hundred steps, and the ratio for the last. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SPAN = 100  # steps
FLUSH = {"computed with": "0", "count as zero": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "demo_run", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help=f"{2 * SPAN} or more (default: %(default)s)")
    parser.add_argument("--flush", choices=("0", "1"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flush:
        os.chdir(arguments.folder)
        print(json.dumps(measure(arguments.steps, arguments.flush == "1")))
        return
    paces = {}
    print(f"{'steps a second':>16}{'first':>8}{'last':>8}")
    for name, flush in FLUSH.items():
        command = [sys.executable, __file__, str(arguments.folder), "--steps", str(arguments.steps), "--flush", flush]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        paces[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:>16}{paces[name][0]:8.2f}{paces[name][1]:8.2f}", flush=True)
    ratio = paces["count as zero"][1] / paces["computed with"][1]
    print(f"{'ratio':>16}{'':8}{ratio:8.2f}")
    print(json.dumps({"benchmark": "denormals", "steps": arguments.steps, "paces": paces, "ratio": ratio}))


def measure(steps: int, flush: bool) -> tuple[float, float]:
    """Train in the current folder; returns steps per second of processor time over the first and the last SPAN."""
    import torch

    torch.set_flush_denormal(flush)
    from modules.config import load_config
    from vits.dataset import ClipDataset, collate
    from vits.step import Learner, learning_rate

    config = load_config("configs/config.json")
    torch.manual_seed(config.train.seed)
    learner = Learner(config, torch.device("cpu"))
    dataset = ClipDataset(Path(config.data.training_files), config, training=True)
    size = config.train.batch_size
    epoch_steps = -(-len(dataset) // size)
    config.train.epochs = -(-steps // epoch_steps)
    moments = []
    for number in range(steps + 1):
        if number in (0, SPAN, steps - SPAN, steps):
            moments.append(time.process_time())
        epoch = number // epoch_steps
        learner.optim_g.set_rate(learning_rate(config, epoch + 1))
        batch = collate([dataset[epoch, (number * size + item) % len(dataset)] for item in range(size)])
        learner.step(batch, number=number, adversarial=False)
    return SPAN / (moments[1] - moments[0]), SPAN / (moments[3] - moments[2])


if __name__ == "__main__":
    main()
