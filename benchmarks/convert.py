"""Measure the speed of a conversion, the time of each stage, and the gain of two optimizations.

    python benchmarks/convert.py                                     # the default configuration on the CPU
    python benchmarks/convert.py --config configs/config.json --device cuda --f0_predictor crepe --seconds 60

The song is generated, the weights are random (they do not affect speed), and the encoder is mfcc, which needs no file.
The ratios compare plain with normalised weights, and decoding in blocks with decoding at once, on a piece as long as
the song. The two alternate, so a busy machine slows both. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from inference.conversion import Conversion
from inference.song import Song
from inference.svc import Svc
from modules.audio.files import write_audio
from modules.config import Config, load_config, save_config
from vencoder import ENCODERS
from vits.synthesizer import Synthesizer

STAGES = ("read", "F0", "encoder", "prior and flow", "decoder", "write", "rest")


class Stopwatch:
    """Measures the seconds spent in functions and iterators, by name; synchronizes with the device first."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: Counter[str] = Counter()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def function(self, name: str, function: Callable) -> Callable:
        def timed(*arguments, **options):
            start = self.now()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += self.now() - start

        return timed

    def iterator(self, name: str, items: Iterable) -> Iterator:
        advance = self.function(name, iter(items).__next__)
        while True:
            try:
                item = advance()
            except StopIteration:
                return
            yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="config.json (default: the published default configuration)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--f0_predictor", default="pm")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the song (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each comparison (default: %(default)s)")
    arguments = parser.parse_args()
    config = load_config(arguments.config) if arguments.config else Config()
    config.model.speech_encoder, config.model.ssl_dim = "mfcc", ENCODERS["mfcc"].ssl_dim
    with tempfile.TemporaryDirectory() as folder:
        svc, unfolded = build(Path(folder), config, arguments.device)
        song = write_song(Path(folder) / "song.wav", arguments.seconds, svc.target_sample)
        conversion = Conversion(next(iter(svc.spk2id)), f0_predictor=arguments.f0_predictor)
        convert(svc, song, conversion)  # loads the predictor and warms up
        figures = convert(svc, song, conversion)
    figures["peak_memory_gib"] = peak_memory(svc.device)
    figures |= compare(svc, unfolded, arguments.seconds, arguments.repeats)
    report(figures, arguments.seconds)
    print(json.dumps({"benchmark": "convert", "device": str(svc.device), "seconds": arguments.seconds, **figures}))


def build(folder: Path, config: Config, device: str) -> tuple[Svc, Synthesizer]:
    """Build a converter with random weights, and its synthesizer with weight norm."""
    torch.manual_seed(0)
    unfolded = Synthesizer(config.model)
    torch.save({"model": unfolded.state_dict()}, folder / "G_1.pth")
    save_config(config, folder / "config.json")
    svc = Svc(folder / "G_1.pth", folder / "config.json", device)
    return svc, unfolded.eval().to(svc.device)


def write_song(path: Path, seconds: float, rate: int) -> Path:
    """Write a gliding tone with overtones and, every eight seconds, a second of silence."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(220 + 80 * np.sin(time)) / rate
    audio = sum(0.2 / k * np.sin(k * phase) for k in range(1, 8)) * (time % 8 < 7)
    write_audio(path, audio.astype(np.float32), rate)
    return path


def convert(svc: Svc, path: Path, conversion: Conversion) -> dict[str, float]:
    """Measure the seconds of each stage of one conversion from disk to disk, and of the whole."""
    watch = Stopwatch(svc.device)
    song = watch.function("measure", Song)(path)
    synthesizer, extractor = svc.synthesizer, svc.feature_extractor
    encoder, predictor = extractor.encoder, extractor.predictor
    encode, decode, infer, read = encoder.features, synthesizer.dec.decode, synthesizer.infer, song.parts
    try:
        encoder.features = watch.function("encoder", encode)
        extractor.predictor = lambda *key: watch.function("F0", predictor(*key))
        synthesizer.dec.decode = watch.function("decoder", decode)
        synthesizer.infer = watch.function("synthesizer", infer)
        song.parts = lambda ranges: watch.iterator("read", read(ranges))
        start = watch.now()
        parts = watch.iterator("convert", svc.convert(song, conversion))
        write_audio(path.with_name("converted.flac"), parts, svc.target_sample)
        converted = watch.now() - start
    finally:
        del extractor.predictor, encoder.features, synthesizer.dec.decode, synthesizer.infer
    spent = watch.seconds
    stages = {name: spent[name] for name in ("read", "F0", "encoder", "decoder")}
    stages["prior and flow"] = spent["synthesizer"] - spent["decoder"]
    stages["write"] = converted - spent["convert"]
    total = converted + spent["measure"]
    stages["rest"] = total - sum(stages.values())
    return {**stages, "total": total}


@torch.inference_mode()
def compare(svc: Svc, unfolded: Synthesizer, seconds: float, repeats: int) -> dict[str, float]:
    """Compare the synthesizer with normalised and with plain weights, and decoding at once and in blocks, by time."""
    watch = Stopwatch(svc.device)
    model, frames = svc.config.model, int(seconds * svc.target_sample) // svc.hop_size
    units = torch.randn(1, model.ssl_dim, frames, device=svc.device)
    z = torch.randn(1, model.inter_channels, frames, device=svc.device)
    f0 = torch.full((1, frames), 220.0, device=svc.device)
    speaker = torch.zeros(1, 1, dtype=torch.long, device=svc.device)
    g = svc.synthesizer.speaker_condition(speaker)
    features = units, f0, torch.ones_like(f0), speaker
    folding = ratio(watch, lambda: unfolded.infer(*features), lambda: svc.synthesizer.infer(*features), repeats)
    decode = svc.synthesizer.dec.decode
    blocks = ratio(watch, lambda: decode(z, f0, g, block_frames=frames), lambda: decode(z, f0, g), repeats)
    return {"ratio_folding": folding, "ratio_blocks": blocks, "frames_compared": frames}


def ratio(watch: Stopwatch, slow: Callable, fast: Callable, repeats: int) -> float:
    """Return the median ratio of the seconds of ``slow`` and ``fast``."""
    ratios = []
    for _ in range(repeats):
        watch.seconds.clear()
        watch.function("slow", slow)()
        watch.function("fast", fast)()
        ratios.append(watch.seconds["slow"] / watch.seconds["fast"])
    return statistics.median(ratios)


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in GiB of PyTorch on the device or, on a CPU, of the process with its libraries."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def report(figures: dict[str, float], seconds: float) -> None:
    for stage in STAGES:
        print(f"{stage:15s} {figures[stage]:8.3f} s   {figures[stage] / seconds:7.4f} of real time")
    figures["real_time_factor"] = figures["total"] / seconds
    print(f"{'all':15s} {figures['total']:8.3f} s   {figures['real_time_factor']:7.4f} of real time")
    print(f"peak memory {figures['peak_memory_gib']:.2f} GiB")
    print(f"folded weight norm: {figures['ratio_folding']:.2f} times faster synthesizer")
    print(f"decoding in blocks: {figures['ratio_blocks']:.2f} times faster over {figures['frames_compared']} frames")


if __name__ == "__main__":
    main()
