"""Measure the throughput of each speech encoder, in seconds of sound per second.

Every key is measured with its weight file if that is under pretrain/, else with random weights of the published sizes;
ONNX keys then have a graph of one convolution, which shows the overhead of ONNX Runtime. The clips have different
lengths. With one thread on a CPU the time is processor time, which other load hardly affects. The last line is JSON.

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
    parser.add_argument("--clips", type=int, default=12, help="number of clips (default: %(default)s)")
    parser.add_argument("--shortest", type=float, default=0.5, help="seconds (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=3.0, help="seconds (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the fastest counts (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="compute in half precision")
    parser.add_argument("-d", "--device", help="cpu, cuda, mps (default: the best available)")
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
    figures = {}
    print("key                seconds of sound a second")
    for key in arguments.keys or ENCODERS:
        encoder = build(key, device, arguments.half)
        figures[key] = measure(encoder, clips, arguments.rounds)
        print(f"{key:<18} {figures[key]:>25.1f}", flush=True)
        del encoder
    print(json.dumps({"benchmark": "encoders", "device": str(device), "lengths": lengths.tolist(), "figures": figures}))
    return 0


def build(key: str, device: torch.device, half: bool) -> SpeechEncoder:
    """Build the encoder from its weight file, or from a temporary file with random weights."""
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


def measure(encoder: SpeechEncoder, clips: Sequence[torch.Tensor], rounds: int) -> float:
    """Return the throughput of the fastest round, in seconds of sound per second."""

    def encode() -> None:
        for clip in clips:
            encoder(clip)

    encoder(clips[0])
    total = sum(len(clip) for clip in clips) / 16000
    return total / min(seconds(encode, encoder.device) for _ in range(rounds))


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that ``work`` takes: processor time with one CPU thread, else wall time."""
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
