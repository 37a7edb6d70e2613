"""Measure the live conversion: time of each stage, the shortest block, what the look-ahead costs, and memory.

    OMP_NUM_THREADS=1 python benchmarks/live.py --model a/G_8000.pth --config a/config.json --song song.wav
    OMP_NUM_THREADS=1 python benchmarks/live.py --tiny --encoder mfcc
    python benchmarks/live.py --encoder vec768l12 --blocks 0.5 1 2

Without --model the weights are random, which does not affect speed. With one thread on a CPU the time is processor
time, so other processes slow it little. "Total delay" is what would be printed for a device without a delay of its own.
With --model the errors of a shorter look-ahead follow: of the decoder against an unlimited one with the same latent, in
dB; and of F0 and the spectrum against the offline conversion of the song. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from benchmarks.convert import write_random_model, write_song
from inference.conversion import Conversion
from inference.svc import Svc
from live import converter as converters
from live.converter import StreamingConverter
from live.durations import Durations
from live.session import BUFFER, Session
from live.simulation import Simulation
from live.voice import FAR
from modules.audio.files import read_audio
from modules.audio.spectrogram import mel_spectrogram
from vdecoder.block_plan import plan_block

FAST_ENOUGH = 0.8  # real-time factor
FRAME = 512 / 44100  # seconds
WARM_UP = 3  # blocks


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="trained generator (default: random weights)")
    parser.add_argument("--config", help="its config.json")
    parser.add_argument("--tiny", action="store_true", help="random weights of the tiny configuration")
    parser.add_argument("--encoder", default="vec768l12", help="encoder of random weights (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--f0_predictor", nargs="+", default=["pm", "fcpe"], help="(default: pm fcpe)")
    parser.add_argument("--song", type=Path, help="a song (default: a generated one)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of the song (default: %(default)s)")
    parser.add_argument("--blocks", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.25, 0.5])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the run that measures memory; 0: none")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    facts: dict = {"benchmark": "live", "threads": torch.get_num_threads(), "device": arguments.device}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = (arguments.model, arguments.config) if arguments.model else write_random_model(folder, arguments)
        svc = Svc(*files, arguments.device, pretrain_folder=folder)
        path = arguments.song or write_song(folder / "song.wav", arguments.seconds, svc.target_sample)
        song = read_audio(path, svc.target_sample)[0]
        for predictor in arguments.f0_predictor:
            facts[predictor] = measure_blocks(svc, song, predictor, arguments.blocks)
        if arguments.model:
            facts["decoder_ahead_db"] = measure_decoder(svc, song)
            facts["features_ahead"] = measure_features(svc, song, path)
            facts["border_flux"] = measure_borders(svc, song, arguments.blocks)
        if arguments.minutes:
            facts["memory"] = measure_memory(svc, song, arguments.minutes)
    print(json.dumps(facts))


def run(svc: Svc, song: np.ndarray, block: float, **settings: object) -> tuple[np.ndarray, StreamingConverter]:
    """Convert a song live, without the gate; returns the sound, without its look-ahead, and the converter."""
    conversion = Conversion(next(iter(svc.spk2id)), slice_db=-120, **settings)
    converter = StreamingConverter(svc, conversion, block)
    if svc.device.type == "cpu" and torch.get_num_threads() == 1:
        converter.stages.clock = time.process_time
    size, whole, parts = converter.block, Durations(), []
    song = np.concatenate((song, np.zeros(converter.look_ahead, np.float32)))
    for first in range(0, len(song) - size + 1, size):
        start = converter.stages.clock()
        parts.append(converter(song[first : first + size]))
        whole.add(converter.stages.clock() - start)
        if first == (WARM_UP - 1) * size:
            whole = Durations()
            for name in converter.stages.stages:
                converter.stages.stages[name] = Durations()
    converter.stages.stages["all"] = whole
    return np.concatenate(parts)[converter.look_ahead :], converter


# -- speed ------------------------------------------------------------------------------------------------------------


def measure_blocks(svc: Svc, song: np.ndarray, predictor: str, blocks: list[float]) -> dict:
    """Print and return the time of each stage, the real-time factor and the total delay for each length of block."""
    figures = {}
    print(f"F0 by {predictor}: p50 / p99 / longest, ms a block")
    for seconds in blocks:
        _, converter = run(svc, song, seconds, f0_predictor=predictor)
        length = converter.block / converter.rate
        stages = converter.stages.stages
        times = {
            name: [1000 * t for t in (one.percentile(50), one.percentile(99), one.longest)]
            for name, one in stages.items()
        }
        session = Session(converter, converter.rate, round(BUFFER * converter.rate), stages["all"])
        factor, delay = stages["all"].percentile(50) / length, session.delays().total
        figures[f"{seconds:g}"] = {"stages": times, "rtf": factor, "delay": delay}
        cells = "; ".join(f"{name} " + " / ".join(f"{t:.1f}" for t in three) for name, three in times.items())
        print(f"block {1000 * length:6.1f} ms: {cells}; RTF {factor:.3f}, total delay {1000 * delay:.0f} ms")
    fast = [float(seconds) for seconds, one in figures.items() if one["rtf"] < FAST_ENOUGH]
    if fast:
        least = f"{min(fast):g}"
        print(f"shortest with a factor below {FAST_ENOUGH}: {least} s, {1000 * figures[least]['delay']:.0f} ms in all")
    return figures


# -- look-ahead -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def measure_decoder(svc: Svc, song: np.ndarray, block: int = 9) -> dict[int, float]:
    """Print and return the error in dB of the newest frame of a block by the decoder's look-ahead in frames.

    Computes the latent over the whole song.
    """
    net, dec = svc.synthesizer, svc.synthesizer.dec
    features = svc.feature_extractor.extract(torch.from_numpy(song), "pm", 0.05)
    f0, frames = features.f0, features.f0.shape[1]
    generator, mask = torch.Generator().manual_seed(0), torch.ones(1, 1, frames)
    g = net.speaker_condition(torch.tensor([[0]]))
    x = net.content(features.units, features.uv, mask, features.volume if svc.config.model.vol_embedding else None)
    z = net.latent(x, f0, mask, g, torch.randn(net.noise_shape(f0), generator=generator), 0.4)
    source = dec.m_source(f0, generator)
    whole, errors, hop = dec.generate(z, source, g)[0, 0], {}, dec.hop_length
    for ahead in range(8):
        plan = plan_block(dec, FAR, FAR + block, FAR + block + ahead)
        heard, wanted = [], []
        for first in range(100, frames - 20, block):
            begin, end = (first + edge - FAR for edge in (plan.window.start, plan.window.stop))
            audio = dec.generate(z[:, :, begin:end], source[:, :, begin * hop : end * hop], g, plan)
            heard.append(audio[0, 0, -hop:])
            wanted.append(whole[(first + block - 1) * hop : (first + block) * hop])
        wanted = torch.cat(wanted).numpy()
        errors[ahead] = decibels(torch.cat(heard).numpy() - wanted, wanted)
        print(f"decoder's look-ahead {ahead} frames ({1000 * ahead * FRAME:.0f} ms): {errors[ahead]:.1f} dB")
    return errors


def measure_features(svc: Svc, song: np.ndarray, path: Path) -> dict[int, tuple[float, float]]:
    """Print and return the share of frames with wrong F0 or voicing, and the distance of the log-mel spectrograms, to
    the offline conversion, by the look-ahead of features in frames; and the distance of another seed."""
    speaker = next(iter(svc.spk2id))
    offline = svc.slice_inference(path, speaker, f0_predictor="pm", slice_db=-120)
    other = svc.slice_inference(path, speaker, f0_predictor="pm", slice_db=-120, seed=1)
    print(f"log-mel distance of another seed {distance(offline, other, svc):.3f}")
    wav = torch.from_numpy(song)
    wanted = torch.stack(svc.feature_extractor.f0(wav, "pm", 0.05)).numpy()
    figures = {}
    for frames in range(1, 10):
        heard, found = look_ahead(svc, song, frames)
        pairs = min(found.shape[1], wanted.shape[1])
        f0, uv = found[:, 100:pairs]
        true_f0, true_uv = wanted[:, 100:pairs]
        cents = 1200 * np.abs(np.log2(np.maximum(f0, 1) / np.maximum(true_f0, 1)))
        wrong = float(((uv != true_uv) | ((cents > 50) & (true_uv > 0))).mean())
        figures[frames] = wrong, distance(offline, heard, svc)
        print(
            f"features' look-ahead {frames} frames ({1000 * frames * FRAME:.0f} ms): wrong F0 or voicing "
            f"{100 * wrong:.1f} %, log-mel distance {figures[frames][1]:.3f}"
        )
    return figures


def look_ahead(svc: Svc, song: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Convert with this look-ahead of features; returns the sound, and F0 and voicing (2, T)."""
    found: list[torch.Tensor] = []
    update = converters.PitchStream.update

    def watched(stream, predictor, shift, sound, final):
        first = stream.final
        update(stream, predictor, shift, sound, final)
        found.append(stream._values.view(first, final).clone())

    with (
        mock.patch.object(converters, "FEATURES_AHEAD", (frames - 0.5) * FRAME),
        mock.patch.object(converters.PitchStream, "update", watched),
    ):
        heard, _ = run(svc, song, 0.1, f0_predictor="pm")
    return heard, torch.cat(found, dim=1).numpy()


def measure_borders(svc: Svc, song: np.ndarray, blocks: list[float]) -> dict[str, float]:
    """Print and return how much the log-mel spectrum changes at the borders of blocks, as a multiple of elsewhere."""
    ratios = {}
    for seconds in blocks:
        heard, converter = run(svc, song, seconds, f0_predictor="pm")
        settings = converter.rate, 1024, 80, converter.hop, 1024, 0.0, None
        mel = mel_spectrogram(torch.from_numpy(heard)[None], *settings)[0]
        flux = mel.diff(dim=1).abs().mean(0)[100:].numpy()
        # After its look-ahead was cut off, a block begins so many frames after a multiple of its length.
        after = (np.arange(100, 100 + len(flux)) + converter.look_ahead // converter.hop) % converter.frames
        at_border = (after == 0) | (after == converter.frames - 1)
        ratios[f"{seconds:g}"] = float(flux[at_border].mean() / flux[~at_border].mean())
        print(f"spectral flux at the borders of blocks of {seconds:g} s: {ratios[f'{seconds:g}']:.2f} of elsewhere")
    return ratios


def decibels(error: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(error**2) / np.mean(reference**2) + 1e-20))


def distance(one: np.ndarray, other: np.ndarray, svc: Svc) -> float:
    """Return the mean distance of the log-mel spectrograms after the first second."""
    rate = svc.target_sample
    length = min(len(one), len(other))
    settings = rate, 2048, 80, svc.hop_size, 2048, 0.0, None
    first, second = (mel_spectrogram(torch.from_numpy(sound[rate:length])[None], *settings) for sound in (one, other))
    return float((first - second).abs().mean())


# -- memory -----------------------------------------------------------------------------------------------------------


def measure_memory(svc: Svc, song: np.ndarray, minutes: float) -> dict[str, float]:
    """Print and return memory in MiB and the delay in ms, after the first tenth of a long run and at its end."""
    conversion = Conversion(next(iter(svc.spk2id)), slice_db=-60, f0_predictor="pm")
    converter = StreamingConverter(svc, conversion, 0.5)
    durations = Durations()
    durations.add(0.1)
    buffer = round(BUFFER * converter.rate)
    session = Session(converter, converter.rate, buffer, durations)
    simulation = Simulation(session, converter.rate, buffer, lambda number, measured: 0.1)
    found = []
    for _ in range(10):
        for _ in simulation.run(np.resize(song, int(minutes * 6 * converter.rate))):
            pass
        found.append((resident(), 1000 * session.delays().total))
    (before, delay), (after, last) = found[0], found[-1]
    print(f"memory after {minutes / 10:g} min {before:.1f} MiB, after {minutes:g} min {after:.1f} MiB; ", end="")
    print(f"delay {delay:.2f} and {last:.2f} ms, gaps {session.scheduler.underruns}")
    return {"first_mib": before, "last_mib": after, "first_ms": delay, "last_ms": last}


def resident() -> float:
    """Return this process's resident memory in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
