"""Measure the speed of a conversion beside the same conversion computed as so-vits-svc 4.1 does, and its stages.

    OMP_NUM_THREADS=1 python benchmarks/convert.py
    OMP_NUM_THREADS=1 python benchmarks/convert.py --tiny --encoder mfcc --seconds 600
    python benchmarks/convert.py --model logs/44k/G_8000.pth --config logs/44k/config.json --precision fp32 bf16
    python benchmarks/convert.py --device cuda --precision fp32 fp16

Without --model the weights are random, which does not affect speed; the encoder's weights are random if pretrain/ does
not hold them. "As published" is the decoder in one float32 pass, with PyTorch's plain convolutions; loading is not
counted. Variants alternate, so a busy machine slows all of them. With one thread on a CPU the time is processor time.

The error, which needs --model, is the mean distance of the log-mel spectrograms to the song as published; beside it
stands the distance of another seed, of which an inaudible error is a small share. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from inference.conversion import Conversion
from inference.feature_cache import FeatureCache
from inference.song import Song
from inference.svc import Svc
from modules.audio.files import write_audio
from modules.audio.spectrogram import mel_spectrogram
from modules.config import Config, save_config
from modules.layers import convolution
from modules.memory import peak_memory
from preparation.configs import load_template
from vencoder import ENCODERS
from vits.generator_file import load_generator
from vits.synthesizer import Synthesizer

STAGES = ("read", "F0", "encoder", "prior and flow", "decoder", "write", "rest")
PUBLISHED, OTHER_SEED = "as published", "another seed"


class Stopwatch:
    """Seconds spent in functions and iterators, by name; processor time with one thread on a CPU."""

    def __init__(self, device: torch.device):
        self.device = device
        self.clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        self.seconds: Counter[str] = Counter()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return self.clock()

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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="trained generator (default: random weights)")
    parser.add_argument("--config", help="its config.json")
    parser.add_argument("--tiny", action="store_true", help="random weights of the tiny configuration")
    parser.add_argument("--encoder", default="vec768l12", help="encoder of random weights (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32"], help="variants (default: fp32)")
    parser.add_argument("--f0_predictor", default="pm")
    parser.add_argument("--song", type=Path, help="a song (default: a generated one)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the song (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: %(default)s)")
    parser.add_argument("--alone", action="store_true", help="leave out the published form, to measure memory")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = (arguments.model, arguments.config) if arguments.model else write_random_model(folder, arguments)
        svcs = {p: Svc(*files, arguments.device, pretrain_folder=folder, precision=p) for p in arguments.precision}
        first = next(iter(svcs.values()))
        song = arguments.song or write_song(folder / "song.wav", arguments.seconds, first.target_sample)
        speaker, predictor = next(iter(first.spk2id)), arguments.f0_predictor
        conversion = Conversion(speaker, f0_predictor=predictor)
        variants = {p: (svc, contextlib.nullcontext) for p, svc in svcs.items()}
        if not arguments.alone:
            exact = Svc(*files, arguments.device, pretrain_folder=folder, precision="fp32")
            exact.synthesizer = load_generator(files[0], exact.config).to(exact.device)
            variants = {PUBLISHED: (exact, lambda: as_published(exact)), **variants}
        figures, sounds = measure(variants, song, conversion, arguments.repeats, folder)
        if not arguments.alone and arguments.model:
            with as_published(exact):
                sounds[OTHER_SEED] = exact.slice_inference(song, speaker, f0_predictor=predictor, seed=1)
            add_errors(figures, sounds, first)
    report(figures, Song(song).seconds if arguments.song else arguments.seconds)
    memory = peak_memory(first.device)
    print(f"peak memory of the process: {memory:.2f} GiB")
    facts = {"device": arguments.device, "threads": torch.get_num_threads(), "peak_memory_gib": memory}
    print(json.dumps({"benchmark": "convert", **facts, "variants": figures}))


def write_random_model(folder: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Write a generator with random weights, its config, and the encoder's file if it needs one."""
    from tests.encoder_files import write_encoder_file

    config: Config = load_template(tiny=arguments.tiny)
    row = ENCODERS[arguments.encoder]
    config.model.speech_encoder = arguments.encoder
    for key, value in row.sizes().items():
        setattr(config.model, key, value)
    if row.weight:
        write_encoder_file(arguments.encoder, folder, published=True)
    torch.manual_seed(0)
    torch.save({"model": Synthesizer(config.model).state_dict()}, folder / "G_1.pth")
    save_config(config, folder / "config.json")
    return folder / "G_1.pth", folder / "config.json"


@contextlib.contextmanager
def as_published(svc: Svc) -> Iterator[None]:
    """Let a converter with plain residual blocks decode in one pass, with convolutions in PyTorch's memory format."""
    dec = svc.synthesizer.dec

    def one_pass(z, f0, g=None, generator=None, **options):
        return dec.generate(z, dec.m_source(f0, generator), g)

    with (
        mock.patch.object(convolution, "_use_channels_last", lambda conv, x: False),
        mock.patch.object(dec, "decode", one_pass),
    ):
        yield


def write_song(path: Path, seconds: float, rate: int) -> Path:
    """Write a gliding tone with overtones and, every eight seconds, a second of silence."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(220 + 80 * np.sin(time)) / rate
    audio = sum(0.2 / k * np.sin(k * phase) for k in range(1, 8)) * (time % 8 < 7)
    write_audio(path, audio.astype(np.float32), rate)
    return path


def measure(
    variants: dict[str, tuple[Svc, Callable]], path: Path, conversion: Conversion, repeats: int, folder: Path
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Convert with each variant in turn; returns the stages of the fastest run, and the sound, of each."""
    figures: dict[str, dict[str, float]] = {}
    sounds: dict[str, np.ndarray] = {}
    for turn in range(repeats + 1):
        for name, (svc, form) in variants.items():
            with form():
                stages, sounds[name] = convert(svc, path, conversion, folder)
            if turn == 1 or (turn and stages["total"] < figures[name]["total"]):  # the first turn warms up
                figures[name] = stages
    published = figures.get(PUBLISHED, {}).get("total")
    for stages in figures.values():
        stages["ratio"] = published / stages["total"] if published else float("nan")
    return figures, sounds


def convert(svc: Svc, path: Path, conversion: Conversion, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    """Measure the seconds of each stage of one conversion from disk to disk, and of the whole."""
    watch = Stopwatch(svc.device)
    song = watch.function("measure", Song)(path)
    synthesizer, extractor = svc.synthesizer, svc.feature_extractor
    encoder, predictor, parts = extractor.encoder, extractor.predictor, []

    def timed_predictor(*key):
        run = predictor(*key)
        timed = watch.function("F0", run)
        timed.weight = run.weight
        return timed

    def keep(audio: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for part in audio:
            parts.append(part)
            yield part

    patched = mock.patch.object
    extractor._f0 = FeatureCache(in_memory=0)  # measure the analysis each time
    with (
        patched(encoder, "features", watch.function("encoder", encoder.features)),
        patched(extractor, "predictor", timed_predictor),
        patched(synthesizer.dec, "decode", watch.function("decoder", synthesizer.dec.decode)),
        patched(synthesizer, "infer", watch.function("synthesizer", synthesizer.infer)),
        patched(song, "parts", lambda ranges, read=song.parts: watch.iterator("read", read(ranges))),
    ):
        start = watch.now()
        audio = watch.iterator("convert", svc.convert(song, conversion))
        write_audio(folder / "converted.flac", keep(audio), svc.target_sample)
        converted = watch.now() - start
    spent = watch.seconds
    stages = {name: spent[name] for name in ("read", "F0", "encoder", "decoder")}
    stages["prior and flow"] = spent["synthesizer"] - spent["decoder"]
    stages["write"] = converted - spent["convert"]
    stages["total"] = converted + spent["measure"]
    stages["rest"] = 2 * stages["total"] - sum(stages.values())
    return stages, np.concatenate(parts)


def add_errors(figures: dict[str, dict[str, float]], sounds: dict[str, np.ndarray], svc: Svc) -> None:
    """Add the distance of each variant's log-mel spectrogram to the published form's, and of another seed's."""
    settings = svc.target_sample, 2048, 80, svc.hop_size, 2048, 0.0, None
    logs = {name: mel_spectrogram(torch.from_numpy(sound)[None], *settings) for name, sound in sounds.items()}
    for name in sounds:
        distance = float((logs[name] - logs[PUBLISHED]).abs().mean())
        figures.setdefault(name, {})["error"] = distance


def report(figures: dict[str, dict[str, float]], seconds: float) -> None:
    names = [name for name in figures if "total" in figures[name]]
    print(f"{'of real time':15s}" + "".join(f"{name:>15s}" for name in names))
    for stage in (*STAGES, "total"):
        print(f"{stage:15s}" + "".join(f"{figures[name][stage] / seconds:15.4f}" for name in names))
    print(f"{'times as fast':15s}" + "".join(f"{figures[name]['ratio']:15.2f}" for name in names))
    for name, stages in figures.items():
        if "error" in stages:
            print(f"log-mel distance to the published form: {name:15s} {stages['error']:.6f}")


if __name__ == "__main__":
    main()
