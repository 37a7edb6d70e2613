"""Measure how the way in which OpenMP threads wait affects the time of a training step, on an idle and a busy machine.

    python benchmarks/thread_waiting.py
    python benchmarks/thread_waiting.py --steps 48 --busy 2 --rounds 3

Trains the demo's network on random clips in a process for each setting: as the scripts set it (GOMP_SPINCOUNT=20000),
with OpenMP's default, with passive waiting, and with one thread. On the busy machine ``--busy`` other processes compute
without a pause. The settings alternate, and the median of the rounds counts. The ratio is the time with the default
divided by the time with the setting. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from modules.console import SPIN_COUNT, WAIT_SETTINGS

SETTINGS = {
    "default": {},
    "as the scripts set it": {"GOMP_SPINCOUNT": SPIN_COUNT},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WARM_UP = 4  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=48, help="training steps that are timed (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=2, help="other processes that compute (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(arguments.steps))
        return
    seconds = {
        name: compare(arguments.steps, arguments.rounds, busy)
        for name, busy in {"quiet": 0, "busy": arguments.busy}.items()
    }
    print(f"{arguments.steps} training steps, s   " + "".join(f"{name:>24s}" for name in SETTINGS))
    for name, row in seconds.items():
        ratios = (f"{row[key]:.1f} ({row['default'] / row[key]:.2f})" for key in SETTINGS)
        print(f"{name:22s}" + "".join(f"{text:>24s}" for text in ratios))
    print(json.dumps({"benchmark": "thread_waiting", "steps": arguments.steps, "seconds": seconds}))


def compare(steps: int, rounds: int, busy: int) -> dict[str, float]:
    """Return the median seconds of each setting, with ``busy`` other processes that compute."""
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    with busy_processes(busy):
        for _ in range(rounds):
            for name, setting in SETTINGS.items():
                unset = (*WAIT_SETTINGS, "OMP_NUM_THREADS")
                environment = {key: value for key, value in os.environ.items() if key not in unset} | setting
                command = [sys.executable, __file__, "--measure", "--steps", str(steps)]
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
                found[name].append(float(done.stdout))
    return {name: statistics.median(values) for name, values in found.items()}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run ``count`` processes that compute without a pause, within the block."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(steps: int) -> float:
    """Return the seconds of ``steps`` training steps of the demo's network, half of them with the discriminator."""
    import torch

    import demo
    from modules.config import Config
    from tests.tiny import write_clip
    from vits.dataset import ClipDataset, collate
    from vits.step import Learner

    config = Config()
    for section, values in ((config.model, demo.SMALL_MODEL), (config.train, demo.SHORT_TRAINING)):
        for key, value in values.items():
            setattr(section, key, value)
    config.spk = {"singer": 0}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        clips = [Path(folder) / "singer" / f"{number}.wav" for number in range(config.train.batch_size)]
        clips[0].parent.mkdir()
        for number, clip in enumerate(clips):
            write_clip(clip, 5.0, seed=number, features=config.model.ssl_dim)
        filelist = Path(folder) / "train.txt"
        filelist.write_text("\n".join(map(str, clips)), encoding="utf-8")
        dataset = ClipDataset(filelist, config, training=True)
        batch = collate([dataset[0, number] for number in range(len(clips))])
    learner = Learner(config, torch.device("cpu"))
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            began = time.monotonic()
        learner.step(batch, number=number, adversarial=number % 2 == 1)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
