"""How fast is ONNX Runtime where torch is the measure: the default synthesizer, the default encoder, RMVPE and FCPE?

    OMP_NUM_THREADS=1 python benchmarks/onnx.py
    python benchmarks/onnx.py --parts synthesizer --seconds 20 --config configs/config.json

Both get the same sound and as many threads as torch has. Weights are random, for they do not matter for speed (FCPE's
are those that come with torchfcpe); sizes are the published ones. The two take turns, so that a busy machine hurts
both, and the fastest of the rounds counts; with one thread the clock is the processor time of this process. The error
is the greatest difference as a share of the greatest value. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # in the place of this folder, where onnx is this file

from modules.console import script  # noqa: E402

PARTS = ("synthesizer", "vec768l12", "rmvpe", "fcpe")
Pair = tuple[Callable[[], Any], Callable[[], Any]]  # by torch, by ONNX Runtime: each gives an array


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--config", help="of the synthesizer (default: the published default configuration)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the sound (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    import torch

    torch.manual_seed(0)
    figures = []
    print("part            torch s    onnx s   ratio     error")
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            if part == "synthesizer":
                pair = synthesizer(Path(folder), arguments.config, arguments.seconds)
            elif part == "vec768l12":
                pair = encoder(part, Path(folder), arguments.seconds)
            else:
                pair = predictor(part, Path(folder), arguments.seconds)
            figures.append({"part": part, **measure(*pair, arguments.rounds)})
        print("{part:<13} {torch_s:>9.2f} {onnx_s:>9.2f} {ratio:>7.2f} {error:>9.1e}".format(**figures[-1]), flush=True)
    threads = torch.get_num_threads()
    print(json.dumps({"benchmark": "onnx", "seconds": arguments.seconds, "threads": threads, "figures": figures}))
    return 0


def measure(by_torch: Callable, by_onnx: Callable, rounds: int) -> dict[str, float]:
    """Seconds of each, how many times faster ONNX Runtime is, and how far apart the results are."""
    import numpy as np

    wanted, found = by_torch(), by_onnx()
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    turns = [(seconds(by_torch), seconds(by_onnx)) for _ in range(rounds)]
    slow, fast = (min(taken) for taken in zip(*turns, strict=True))
    return {"torch_s": slow, "onnx_s": fast, "ratio": slow / fast, "error": error}


def seconds(work: Callable) -> float:
    import torch

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def synthesizer(folder: Path, config_path: str | None, length: float) -> Pair:
    import torch

    from inference.onnx_synthesizer import OnnxSynthesizer
    from modules.config import Config, load_config, save_config
    from onnxexport.synthesizer import export_synthesizer
    from vits.generator_file import load_generator
    from vits.synthesizer import Synthesizer

    config = load_config(config_path) if config_path else Config()
    save_config(config, folder / "config.json")
    torch.save({"model": Synthesizer(config.model).state_dict()}, folder / "G.pth")
    graph = folder / "G.onnx"
    export_synthesizer(folder / "G.pth", folder / "config.json", graph, folder / "G.json", "G")
    network = load_generator(folder / "G.pth", config)
    frames = int(length * config.data.sampling_rate) // config.data.hop_length
    c, f0 = torch.randn(1, config.model.ssl_dim, frames), torch.full((1, frames), 220.0)
    inputs = c, f0, torch.ones_like(f0), torch.zeros(1, 1, dtype=torch.long)
    by_graph = OnnxSynthesizer(graph, config, torch.device("cpu"))
    return lambda: network.infer(*inputs)[0].numpy(), lambda: by_graph.infer(*inputs)[0].numpy()


def encoder(key: str, folder: Path, length: float) -> Pair:
    import torch

    from onnxexport.encoders import export_encoder, graph_path
    from tests.encoder_files import write_encoder_file
    from vencoder import build_encoder

    write_encoder_file(key, folder, published=True)
    export_encoder(key, graph_path(key, folder), pretrain=folder)
    audio = 0.1 * torch.randn(int(length * 16000))
    by_torch, by_onnx = build_encoder(key, folder=folder), build_encoder(f"{key}-onnx", folder=folder)
    return lambda: by_torch(audio).numpy(), lambda: by_onnx(audio).numpy()


def predictor(key: str, folder: Path, length: float) -> Pair:
    import numpy as np
    import torch

    from modules.f0 import build_f0_predictor
    from modules.f0.graph import GraphPredictor
    from modules.f0.rmvpe_network import RmvpeNetwork
    from onnxexport.f0 import export_f0, graph_path
    from tests.pitch_files import random_network

    if key == "rmvpe":
        torch.save({"model": random_network(RmvpeNetwork()).state_dict()}, folder / "rmvpe.pt")
    export_f0(key, graph_path(key, folder), pretrain=folder)
    time = np.arange(int(length * 44100)) / 44100
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(time))
    audio = (sum(0.2 / k * np.sin(2 * np.pi * 220 * k * time) for k in range(1, 8)) + noise).astype(np.float32)
    by_torch = build_f0_predictor(key, folder=folder)
    by_onnx = GraphPredictor(44100, 512, weight=graph_path(key, folder))
    return lambda: by_torch(audio)[0], lambda: by_onnx(audio)[0]


if __name__ == "__main__":
    raise SystemExit(main())
