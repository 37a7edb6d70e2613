"""Measure the speed of each sampler: network evaluations per second, and the sampling time relative to real time.

    python benchmarks/diffusion.py                               # the default configuration on the CPU
    python benchmarks/diffusion.py --device cuda --seconds 20
    python benchmarks/diffusion.py --config configs/diffusion.yaml --k_step 200 --speedup 20

A mel spectrogram is refined by ``--k_step`` steps (shallow diffusion). ddpm ("plain"), which takes every step, is timed
over a few of them and extrapolated, and so is sampling from noise ("alone"). The weights are random, since they do not
affect speed. The script also measures the gain of projecting the condition once per sampling instead of at every
evaluation. All alternate, so a busy machine slows all of them. With one CPU thread the time is processor time. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from diffusion.samplers import SAMPLERS
from diffusion.unit2mel import Unit2Mel, build_unit2mel
from modules.config import DiffusionConfig, load_diffusion_config
from modules.device import pick_device

N_MELS = 128  # bands of the published vocoder's mel
TIMED_STEPS = 10  # steps of ddpm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="diffusion.yaml (default: the published default configuration)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of the sound (default: %(default)s)")
    parser.add_argument("--k_step", type=int, default=100, help="steps undone (default: %(default)s)")
    parser.add_argument("--speedup", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=2, help="rounds that are timed (default: %(default)s)")
    arguments = parser.parse_args()
    config = load_diffusion_config(arguments.config) if arguments.config else DiffusionConfig()
    device = pick_device(arguments.device)
    torch.manual_seed(0)
    net = build_unit2mel(config, N_MELS).to(device).eval()
    song = make_song(config, arguments.seconds, device)
    seconds = measure(jobs(net, song, arguments.k_step, arguments.speedup), arguments.repeats, device)
    result = summary(seconds, net.timesteps, arguments)
    print(json.dumps({"benchmark": "diffusion", "device": str(device), "threads": torch.get_num_threads(), **result}))


def make_song(config: DiffusionConfig, seconds: float, device: torch.device) -> dict[str, torch.Tensor]:
    frames = int(seconds * config.data.sampling_rate / config.data.block_size)
    return {
        "units": torch.randn(1, frames, config.data.encoder_out_channels, device=device),
        "f0": torch.full((1, frames, 1), 220.0, device=device),
        "volume": torch.full((1, frames, 1), 0.1, device=device),
        "speaker": torch.zeros(1, 1, dtype=torch.int64, device=device),
        "mel": torch.full((1, frames, N_MELS), -5.0, device=device),
    }


def jobs(net: Unit2Mel, song: dict, k_step: int, speedup: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name: every method, ddpm by TIMED_STEPS, and as many evaluations that each project."""
    denoiser = net.decoder.denoise_fn
    step = torch.tensor([50.0], device=song["mel"].device)

    @torch.inference_mode()
    def projecting_each_time() -> None:
        condition, x = net.condition(song["units"], song["f0"], song["volume"], song["speaker"]), song["mel"].mT
        for _ in range(TIMED_STEPS):
            denoiser(x, step, condition)

    def refine(**settings) -> Callable[[], object]:
        return lambda: net.infer(**song, **settings)

    fast = {name: refine(method=name, k_step=k_step, speedup=speedup) for name in SAMPLERS if name != "ddpm"}
    return {"ddpm": refine(method="ddpm", k_step=TIMED_STEPS), **fast, "projecting each time": projecting_each_time}


def measure(jobs: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each job over ``repeats`` rounds, after a warm-up round."""
    one_core = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_core else time.perf_counter
    laps = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = clock()
            job()
            if device.type == "cuda":
                torch.cuda.synchronize()
            laps[name].append(clock() - start)
    return {name: statistics.median(times[1:]) for name, times in laps.items()}


def summary(measured: dict[str, float], timesteps: int, arguments: argparse.Namespace) -> dict:
    """Print the table and return its figures."""
    sound, depth, speedup = arguments.seconds, arguments.k_step, arguments.speedup
    each = measured["ddpm"] / TIMED_STEPS
    taken = {**{name: measured[name] for name in SAMPLERS}, "ddpm": each * depth}
    print(f"{1 / each:.2f} evaluations a second, each of {sound:g} s of sound")
    print(f"\n{'':14s}{'evaluations':>12s}{'of real time':>14s}{'faster than plain':>19s}{'alone, of real time':>21s}")
    for name, seconds in taken.items():
        evaluations, alone = (SAMPLERS[name].evaluations(steps, speedup) for steps in (depth, timesteps))
        print(
            f"{name:14s}{evaluations:12d}{seconds / sound:14.3f}{taken['ddpm'] / seconds:19.1f}"
            f"{alone * each / sound:21.3f}"
        )
    once = measured["projecting each time"] / measured["ddpm"]
    print(f"\nprojecting the condition once makes an evaluation {once:.2f} times faster")
    return {
        "seconds": sound,
        "k_step": depth,
        "speedup": speedup,
        "evaluations_per_second": 1 / each,
        "real_time_factor": {name: seconds / sound for name, seconds in taken.items()},
        "times_faster_than_plain": {name: taken["ddpm"] / seconds for name, seconds in taken.items()},
        "times_faster_for_projecting_once": once,
    }


if __name__ == "__main__":
    main()
