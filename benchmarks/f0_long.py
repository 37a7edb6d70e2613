"""How much memory and time does a long file take in each pitch network?

The networks have random weights of the published sizes. Each file runs in a process of its own; its memory is the most
that the process had, above what it had with sound and network loaded. On Linux alone. The last line is JSON.

    python benchmarks/f0_long.py
    python benchmarks/f0_long.py --minutes 60 --predictors fcpe --device cuda
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402

RATE = 44100
KEYS = ("rmvpe", "fcpe")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 20], help="lengths (default: 5 20)")
    parser.add_argument("--predictors", nargs="+", default=KEYS, choices=KEYS, help="default: rmvpe fcpe")
    parser.add_argument("-d", "--device", default="cpu", help="cpu or cuda (default: cpu; memory is of the CPU)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    figures = []
    print("predictor  minutes  sound MB  above it MB  seconds  x real time")
    with tempfile.TemporaryDirectory() as folder:
        for key in arguments.predictors:
            write_weights(key, Path(folder) / f"{key}.pt")
            for minutes in arguments.minutes:
                with multiprocessing.get_context("spawn").Pool(1) as apart:
                    figure = apart.apply(measure, (key, minutes, arguments.device, Path(folder)))
                figures.append(figure)
                print(
                    f"{key:<9}  {minutes:>7g}  {figure['sound_mb']:>8.0f}  {figure['above_mb']:>11.0f}"
                    f"  {figure['seconds']:>7.1f}  {minutes * 60 / figure['seconds']:>11.1f}",
                    flush=True,
                )
    print(json.dumps({"benchmark": "f0_long", "device": arguments.device, "figures": figures}))
    return 0


def measure(key: str, minutes: float, device: str, folder: Path) -> dict[str, float | str]:
    """One file of so many minutes through one predictor."""
    import numpy as np

    from modules.f0 import build_f0_predictor

    predictor = build_f0_predictor(key, RATE, device=device, folder=folder)
    sound = np.random.default_rng(0).standard_normal(round(minutes * 60 * RATE), np.float32) * np.float32(0.1)
    predictor(sound[:RATE])
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
    before, began = megabytes("VmRSS"), time.perf_counter()
    frames = len(predictor(sound)[0])
    seconds, above = time.perf_counter() - began, megabytes("VmHWM") - before
    if frames != len(sound) // 512:
        raise RuntimeError(f"{frames} frames of {len(sound)} samples")
    return {"predictor": key, "minutes": minutes, "sound_mb": sound.nbytes / 1e6, "above_mb": above, "seconds": seconds}


def write_weights(key: str, path: Path) -> None:
    """A file of random weights under the published names."""
    import torch

    from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
    from modules.f0.rmvpe_network import RmvpeNetwork

    torch.manual_seed(0)
    network = RmvpeNetwork() if key == "rmvpe" else FcpeNetwork(FcpeSizes())
    torch.save({"config": {}, "model": network.state_dict()}, path)


def megabytes(name: str) -> float:
    """This process's memory: "VmRSS" as it is, "VmHWM" at its highest."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1e3


if __name__ == "__main__":
    raise SystemExit(main())
