"""How many seconds of sound a second does each speech encoder take, one clip at a time and in batches?

Every key is measured: with its weight file where that is under pretrain/, else with random weights of the published
sizes (ONNX keys with a graph of one convolution, which says what the way to ONNX Runtime costs). Clips are of mixed
length, in the batches that preparation makes of them. With one thread on a CPU the clock is the processor time of this
process, so that other work on the machine matters little. The last line is JSON.

    OMP_NUM_THREADS=1 python benchmarks/encoders.py
    python benchmarks/encoders.py --keys vec768l12 dphubert --clips 32 --shortest 5 --longest 15 -d cuda
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402

if TYPE_CHECKING:
    import torch

    from vencoder.encoder import SpeechEncoder


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="encoders (default: all)")
    parser.add_argument("--clips", type=int, default=12, help="how many (default: %(default)s)")
    parser.add_argument("--shortest", type=float, default=0.5, help="seconds (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=3.0, help="seconds (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="compute in half precision")
    parser.add_argument("-d", "--device", help="cpu, cuda, mps (default: the best there is)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    import numpy as np
    import torch

    from modules.device import pick_device
    from vencoder import ENCODERS

    device = pick_device(arguments.device)
    lengths = np.linspace(arguments.shortest, arguments.longest, arguments.clips)
    generator = torch.Generator().manual_seed(0)
    clips = [(0.1 * torch.randn(int(16000 * length), generator=generator)).to(device) for length in lengths]
    figures = []
    print("key                 one by one   batched   ratio   (seconds of sound a second)")
    for key in arguments.keys or ENCODERS:
        encoder = build(key, device, arguments.half)
        figure = {"key": key, **measure(encoder, clips, arguments.rounds)}
        figures.append(figure)
        print(f"{key:<18} {figure['alone']:>11.1f} {figure['batched']:>9.1f} {figure['ratio']:>7.2f}", flush=True)
        del encoder
    print(json.dumps({"benchmark": "encoders", "device": str(device), "lengths": lengths.tolist(), "figures": figures}))
    return 0


def build(key: str, device: torch.device, half: bool) -> SpeechEncoder:
    """The encoder from its own file, or from one with random weights, which is removed again."""
    from tests.encoder_files import write_encoder_file
    from vencoder import ENCODERS, build_encoder

    weight = ENCODERS[key].weight
    if weight is None or (ROOT / "pretrain" / weight).exists():
        return build_encoder(key, device, ROOT / "pretrain", half)
    folder = Path(tempfile.mkdtemp())
    try:
        write_encoder_file(key, folder, published=True)
        return build_encoder(key, device, folder, half)
    finally:
        shutil.rmtree(folder)


def measure(encoder: SpeechEncoder, clips: Sequence[torch.Tensor], rounds: int) -> dict[str, float]:
    """Both ways in turn, so that a machine that gets slower meets both."""
    from preparation.batches import make_batches

    sounds = [SimpleNamespace(seconds=len(clip) / 16000, clip=clip) for clip in clips]
    batches = [[one.clip for one in batch] for batch in make_batches(sounds, encoder.device.type, 1)]
    total = sum(one.seconds for one in sounds)

    def alone() -> None:
        for clip in clips:
            encoder(clip)

    def batched() -> None:
        for batch in batches:
            encoder.encode_batch(batch)

    encoder(clips[0])
    times = {work.__name__: [] for work in (alone, batched)}
    for _ in range(rounds):
        for work in (alone, batched):
            times[work.__name__].append(seconds(work, encoder.device))
    rates = {name: total / min(found) for name, found in times.items()}
    return {**rates, "ratio": rates["batched"] / rates["alone"]}


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """What the work takes: processor time where one thread computes, else time on the wall."""
    import torch

    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()
    return clock() - began


if __name__ == "__main__":
    raise SystemExit(main())
