"""Measure the time until train.py's first step on an hour of clips, and the share of a step spent waiting for data.

    python benchmarks/first_step.py                                   # an hour, the default configuration, on the CPU
    python benchmarks/first_step.py --device cuda --batch_size 16 --half bf16 --steps 5

The data set is one generated clip with its sidecar files, hard-linked (or copied) under many names, so the speed of the
disk hardly affects the figures. train.py runs as a process, and its log is read. On a GPU, a step is the mean of ten,
because train.py does not wait for the device at every step. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from modules.config import Config, load_config, save_config
from tests.tiny import write_clip

ROOT = Path(__file__).parents[1]
PACE = re.compile(r"Pace: (\S+) steps/s, waiting for data (\S+)% .* at step (\d+)$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="config.json (default: the published default configuration)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--half", choices=("bf16", "fp16"))
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes of clips (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps measured, after the first (default: %(default)s)")
    arguments = parser.parse_args()
    config = load_config(arguments.config) if arguments.config else Config()
    config.train.batch_size, config.train.log_interval = arguments.batch_size, 1 if arguments.device == "cpu" else 10
    if arguments.half:
        config.train.fp16_run, config.train.half_type = True, arguments.half
    with tempfile.TemporaryDirectory() as folder:
        clips = make_data(Path(folder), config, arguments.minutes * 60, arguments.seconds)
        figures = measure(Path(folder), arguments.device, arguments.steps)
    print(f"{clips} clips of {arguments.seconds:g} s")
    print(f"the first step begins after {figures['set_up']:.1f} s and is done after {figures['first_step']:.1f} s")
    print(f"each of the others takes {figures['step']:.3f} s")
    print(f"a step waits {1000 * figures['data']:.1f} ms for its data: {figures['data_share']:.2%} of it")
    print(json.dumps({
        "benchmark": "first_step", "device": arguments.device, "batch_size": arguments.batch_size,
        "minutes": arguments.minutes, "clips": clips, **figures,
    }))  # fmt: skip


def make_data(root: Path, config: Config, seconds: float, length: float) -> int:
    """Write a data set of ``seconds`` below ``root``, in clips of ``length`` seconds; returns the number of clips."""
    singer = root / "dataset" / "44k" / "singer"
    singer.mkdir(parents=True)
    write_clip(singer / "0.wav", length, seed=0, features=config.model.ssl_dim)
    originals, count = list(singer.iterdir()), max(round(seconds / length), 2 * config.train.batch_size)
    for number in range(1, count):
        for path in originals:
            name = singer / (str(number) + path.name.removeprefix("0"))
            try:
                os.link(path, name)
            except OSError:
                shutil.copyfile(path, name)
    paths = [str(singer / f"{number}.wav") for number in range(count)]
    config.spk = {"singer": 0}
    config.data.training_files, config.data.validation_files = str(root / "train.txt"), str(root / "val.txt")
    Path(config.data.training_files).write_text("\n".join(paths), encoding="utf-8")
    Path(config.data.validation_files).write_text(paths[0], encoding="utf-8")
    save_config(config, root / "config.json")
    return count


def measure(root: Path, device: str, steps: int) -> dict[str, float]:
    """Run train.py; returns the seconds until it is set up and its first step is done, and means of ``steps`` more."""
    log, began = root / "logs" / "run" / "train.log", time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-c", "config.json", "-m", "run", "-d", device], cwd=root
    )
    try:
        set_up = wait_for(log, re.compile("a new run in"), 1, process) - began
        first_step = wait_for(log, PACE, 1, process) - began
        wait_for(log, PACE, 1 + steps, process)
    finally:
        process.kill()
        process.wait()
    found = [(float(rate), float(percent) / 100) for rate, percent, _ in PACE.findall(log.read_text(encoding="utf-8"))]
    later = found[1 : 1 + steps]
    step = sum(1 / rate for rate, _ in later) / len(later)
    data = sum(share / rate for rate, share in later) / len(later)
    return {"set_up": set_up, "first_step": first_step, "step": step, "data": data, "data_share": data / step}


def wait_for(log: Path, pattern: re.Pattern, times: int, process: subprocess.Popen) -> float:
    """Wait until the log has ``times`` lines of this pattern; returns the time by ``time.monotonic``."""
    while not log.exists() or len(pattern.findall(log.read_text(encoding="utf-8"))) < times:
        if process.poll() is not None:
            raise SystemExit(f"train.py ended with exit code {process.returncode}")
        time.sleep(0.02)
    return time.monotonic()


if __name__ == "__main__":
    main()
