"""Compare ONNX Runtime with torch in speed and output, and measure the error of a smaller precision.

    OMP_NUM_THREADS=1 python benchmarks/onnx.py
    OMP_NUM_THREADS=1 python benchmarks/onnx.py --parts synthesizer --precision int8
    python benchmarks/onnx.py --parts synthesizer --seconds 20 --config configs/config.json

Both get the same sound, the same random numbers and torch's number of threads. Sizes are the published ones. Weights
are random, since they do not affect speed, and perturbed so that the output depends on every input; FCPE has the
weights of torchfcpe. The denoiser is evaluated once. The two alternate, so a busy machine slows both, and the fastest
round counts. With one thread the time is CPU time. The error is the maximum difference to torch in float32, divided by
the maximum value. The last line is JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # replaces this folder, where onnx would be this file

from modules.console import UserError, script  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

ENCODERS = ("vec768l12", "vec256l9", "hubertsoft", "cnhubertlarge", "dphubert", "wavlmbase+", "whisper-ppg")
DEFAULT_PARTS = ("synthesizer", "vocoder", "denoiser", "vec768l12", "rmvpe", "fcpe")
SHORTEST = 0.2  # seconds
RATE, HOP = 44100, 512
PUBLISHED_VOCODER = {
    "upsample_rates": [8, 8, 2, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
}
Pair = tuple[Callable[[], Any], Callable[[], Any]]  # by torch, by ONNX Runtime: each returns an array


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known, default = ", ".join(makers(None)), " ".join(DEFAULT_PARTS)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(makers(None)),
        default=DEFAULT_PARTS,
        metavar="PART",
        help=f"{known} (default: {default})",
    )
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of the graphs")
    parser.add_argument("--config", help="the synthesizer's config.json (default: the published default configuration)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the sound (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the fastest counts (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.rounds < 1 or not arguments.seconds >= SHORTEST:
        raise UserError(f"--rounds takes 1 or more, and --seconds {SHORTEST} or more")
    import torch

    torch.manual_seed(0)
    figures = []
    print("part              MB   torch s    onnx s   ratio     error")
    for part in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "graph.onnx"
            pair = makers(arguments.config)[part](graph, arguments.seconds, arguments.precision)
            size = graph.stat().st_size / 1e6
            figures.append({"part": part, "megabytes": size, **measure(*pair, arguments.rounds)})
        line = "{part:<14} {megabytes:>5.0f} {torch_s:>9.2f} {onnx_s:>9.2f} {ratio:>7.2f} {error:>9.1e}"
        print(line.format(**figures[-1]), flush=True)
    settings = {name: getattr(arguments, name) for name in ("seconds", "precision")}
    print(json.dumps({"benchmark": "onnx", **settings, "threads": torch.get_num_threads(), "figures": figures}))
    return 0


def makers(config_path: str | None) -> dict[str, Callable[[Path, float, str], Pair]]:
    """Return for each part a function that writes its weights and graph and returns the two runs.

    The function's arguments are the path of the graph, the seconds of sound and the precision.
    """
    return {
        "synthesizer": functools.partial(synthesizer, config_path),
        "vocoder": vocoder,
        "denoiser": denoiser,
        **{key: functools.partial(encoder, key) for key in ENCODERS},
        **{key: functools.partial(predictor, key) for key in ("rmvpe", "fcpe")},
    }


def measure(by_torch: Callable, by_onnx: Callable, rounds: int) -> dict[str, float]:
    """Measure the seconds of both, their ratio, and the error."""
    import numpy as np

    wanted, found = by_torch(), by_onnx()
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    times = [(seconds(by_torch), seconds(by_onnx)) for _ in range(rounds)]
    slow, fast = (min(taken) for taken in zip(*times, strict=True))
    return {"torch_s": slow, "onnx_s": fast, "ratio": slow / fast, "error": error}


def seconds(work: Callable) -> float:
    import torch

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def synthesizer(config_path: str | None, graph: Path, length: float, precision: str) -> Pair:
    import torch

    from inference.onnx_synthesizer import OnnxSynthesizer
    from modules.config import Config, load_config, save_config
    from onnxexport.synthesizer import export_synthesizer
    from tests.generator_files import stirred
    from vits.generator_file import load_generator
    from vits.synthesizer import Synthesizer

    config = load_config(config_path) if config_path else Config()
    model, config_file = graph.with_name("G.pth"), graph.with_name("config.json")
    save_config(config, config_file)
    torch.save({"model": stirred(Synthesizer(config.model).state_dict())}, model)
    export_synthesizer(model, config_file, graph, graph.with_suffix(".json"), "graph", precision)
    network = load_generator(model, config)
    frames = int(length * config.data.sampling_rate) // config.data.hop_length
    c, f0 = torch.randn(1, config.model.ssl_dim, frames), torch.full((1, frames), 220.0)
    volume = torch.full((1, frames), 0.1) if config.model.vol_embedding else None
    inputs = {"c": c, "f0": f0, "uv": torch.ones_like(f0), "speaker": torch.zeros(1, 1, dtype=torch.long)}
    by_graph = OnnxSynthesizer(graph, config, torch.device("cpu"))
    return tuple(lambda one=one: one.infer(**inputs, volume=volume)[0].numpy() for one in (network, by_graph))


def vocoder(graph: Path, length: float, precision: str) -> Pair:
    import torch

    from inference.onnx_synthesizer import expose_random_inputs, sample_source
    from onnxexport.vocoder import export_vocoder
    from tests.vocoder_files import write_vocoder
    from vdecoder.mel_vocoder import load_mel_vocoder

    path = write_vocoder(graph.parent, **PUBLISHED_VOCODER)
    export_vocoder(path, graph, precision=precision)
    network, frames = load_mel_vocoder(path), int(length * RATE) // HOP
    mel, f0 = torch.randn(1, frames, network.n_mels) - 4, torch.full((1, frames), 220.0)
    values = {"c": mel.transpose(1, 2), "f0": f0, **sample_source(frames, HOP, torch.Generator().manual_seed(0))}
    by_graph = runner(graph, values, expose_random_inputs)

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            return network.synthesize(mel, f0, generator=torch.Generator().manual_seed(0)).numpy()

    return by_torch, lambda: by_graph()[:, 0]


def denoiser(graph: Path, length: float, precision: str) -> Pair:
    import torch

    from diffusion.unit2mel import build_unit2mel
    from modules.config import DiffusionConfig
    from onnxexport.diffusion import diffusion_graphs
    from onnxexport.graph import write_graph

    network = build_unit2mel(DiffusionConfig(), 128).eval()
    torch.nn.init.normal_(network.decoder.denoise_fn.output_projection.weight)  # which is initialized to zeros
    part = diffusion_graphs(network)["denoise"]
    write_graph(part, graph, precision)
    frames = int(length * RATE) // HOP
    noise, condition = (torch.randn(*part.inputs[name].shape[:-1], frames) for name in ("noise", "condition"))
    values = {"noise": noise, "time": part.inputs["time"], "condition": condition}

    def by_torch() -> np.ndarray:
        with torch.inference_mode():
            return part.network(**values).numpy()

    return by_torch, runner(graph, values)


def encoder(key: str, graph: Path, length: float, precision: str) -> Pair:
    import torch

    from onnxexport.encoders import export_encoder
    from tests.encoder_files import write_encoder_file
    from vencoder import build_encoder, build_graph_encoder

    write_encoder_file(key, graph.parent, published=True)
    export_encoder(key, graph, pretrain=graph.parent, precision=precision)
    audio = 0.1 * torch.randn(int(length * 16000))
    by_torch, by_onnx = build_encoder(key, folder=graph.parent), build_graph_encoder(key, graph)
    return lambda: by_torch(audio).numpy(), lambda: by_onnx(audio).numpy()


def predictor(key: str, graph: Path, length: float, precision: str) -> Pair:
    import numpy as np
    import torch

    from modules.f0 import build_f0_predictor
    from modules.f0.graph import GraphPredictor
    from modules.f0.rmvpe_network import RmvpeNetwork
    from onnxexport.f0 import export_f0
    from tests.pitch_files import random_network

    if key == "rmvpe":
        torch.save({"model": random_network(RmvpeNetwork()).state_dict()}, graph.with_name("rmvpe.pt"))
    export_f0(key, graph, pretrain=graph.parent, precision=precision)
    at = np.arange(int(length * RATE)) / RATE
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(at))
    audio = (sum(0.2 / k * np.sin(2 * np.pi * 220 * k * at) for k in range(1, 8)) + noise).astype(np.float32)
    by_torch = build_f0_predictor(key, folder=graph.parent)
    by_onnx = GraphPredictor(RATE, HOP, weight=graph)
    return lambda: by_torch(audio)[0], lambda: by_onnx(audio)[0]


def runner(graph: Path, values: dict[str, Any], change: Callable | None = None) -> Callable[[], np.ndarray]:
    """Return a function that computes the graph's first output for these tensors."""
    import torch

    from modules.onnx.session import open_session

    session = open_session(graph, torch.device("cpu"), change)
    arrays = {name: value.numpy() for name, value in values.items()}
    return lambda: session.run(None, arrays)[0]


if __name__ == "__main__":
    raise SystemExit(main())
