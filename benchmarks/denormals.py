"""How much slower denormal numbers make a trained network on a CPU: a training step, and a conversion.

    python benchmarks/denormals.py                     # of the demo's run, after `make demo`
    python benchmarks/denormals.py my_folder -m 44k

Takes the newest generator and discriminator of a training run, and its clips. Times training steps without and with the
discriminator, and the generator's inference on a batch, while denormal numbers are computed with and while
they count as zero (which ``modules.device.pick_device`` sets on a CPU). The two alternate, each in a process of its own
because threads keep the setting with which they begin; medians count. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STEPS, WARM_UP = 8, 2
FLUSH = {"computed with": "0", "count as zero": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "demo_run", help="(default: %(default)s)")
    parser.add_argument("-m", "--model", default="44k", help="the run's name (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--flush", choices=("0", "1"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flush:
        os.chdir(arguments.folder)
        print(json.dumps(measure(arguments.model, arguments.flush == "1")))
        return
    rows = {name: [] for name in FLUSH}
    for _ in range(arguments.rounds):
        for name, flush in FLUSH.items():
            command = [sys.executable, __file__, str(arguments.folder), "-m", arguments.model, "--flush", flush]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {
        work: {name: statistics.median(run[work] for run in runs) for name, runs in rows.items()}
        for work in rows["count as zero"][0]
    }
    print(f"{'seconds':>32}" + "".join(f"{name:>16}" for name in FLUSH) + f"{'ratio':>8}")
    for work, row in seconds.items():
        slow, fast = row.values()
        print(f"{work:>32}{slow:16.4f}{fast:16.4f}{slow / fast:8.2f}")
    print(json.dumps({"benchmark": "denormals", "seconds": seconds}))


def measure(model: str, flush: bool) -> dict[str, float]:
    """Seconds of each kind of work, in the current folder."""
    import torch

    torch.set_flush_denormal(flush)
    from modules.checkpoint import load_checkpoint
    from modules.config import load_config
    from vits.checkpoints import newest_generator
    from vits.dataset import ClipDataset, collate
    from vits.step import Learner

    generator = newest_generator(Path("logs") / model)
    config = load_config("configs/config.json")
    learner = Learner(config, torch.device("cpu"))
    networks = (learner.net_g, learner.optim_g, "G"), (learner.net_d, learner.optim_d, "D")
    for network, optimizer, letter in networks:
        saved = load_checkpoint(generator.with_name(letter + generator.name[1:]))
        network.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    dataset = ClipDataset(Path(config.data.training_files), config, training=True)
    batch = collate([dataset[0, number] for number in range(config.train.batch_size)])

    def convert(number: int) -> None:
        learner.net_g.infer(batch.c, batch.f0, batch.uv, batch.speaker_id, volume=batch.volume)

    seconds = {
        "training step": timed(lambda number: learner.step(batch, number=number, adversarial=False)),
        "training step, discriminator": timed(lambda number: learner.step(batch, number=number)),
    }
    learner.net_g.eval()
    with torch.inference_mode():
        seconds["conversion of a batch"] = timed(convert)
    return seconds


def timed(work: Callable[[int], object]) -> float:
    """Mean seconds of STEPS calls with numbers from WARM_UP on."""
    for number in range(WARM_UP):
        work(number)
    began = time.monotonic()
    for number in range(WARM_UP, WARM_UP + STEPS):
        work(number)
    return (time.monotonic() - began) / STEPS


if __name__ == "__main__":
    main()
