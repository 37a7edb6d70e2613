"""Check that the pieces of a converted song are in position, and that their joints are inaudible.

A song is concatenated from a folder's clips: long phrases, and between them silences of several lengths with a faint
noise. It is converted with default settings and with cuts every three seconds, by a stand-in that returns its input in
whole frames, and by a network: a trained one, or a small one with random weights. For each:

    joints      number of joints of two pieces, and of pieces with silence
    zeros       samples of exact zero that lie in runs, within 20 ms of a joint on sides that are not silence
    late        delay in samples of the most displaced piece, by cross-correlation with the song (stand-in only)
    above       percentage of joints with more spectral flux than 99 % of the other positions, for windows of 256,
                1024 and 2048 samples; for the stand-in only joints with 1 % more flux than the song's own

The last line is JSON. The exit code is 1 if there is a zero, a piece is late, or more than 1 % of the joints are above.

    python benchmarks/joints.py /data/LJSpeech-1.1/wavs
    python benchmarks/joints.py clips --model demo_run/logs/44k/G_1800.pth --config demo_run/configs/config.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import UserError, script  # noqa: E402

if TYPE_CHECKING:
    from inference.song import Song
    from inference.svc import Svc

RATE, HOP = 44100, 512
PHRASES = (1, 3, 2, 12)  # clips in a row; twelve exceed the longest piece, which has three segments
SEGMENT = 10.0  # seconds
SILENCES = (0.7, 8.0, 2.0, 14.0)  # seconds, in turn
NOISE = 1e-4  # standard deviation within the silences
WINDOWS = (256, 1024, 2048)
NEAR = int(0.02 * RATE)
RUN = 16  # this many zeros in a row are a gap, fewer may be sound
CUTS = {"default": {}, "-cl 3": {"clip_seconds": 3.0}}
ROW = (
    "{model:>12}  {cuts:>8}  {joints:>6}  {zeros:>6}  {late!s:>5}  "
    "{above_256:>9.1f}  {above_1024:>10.1f}  {above_2048:>10.1f}"
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of sound files")
    parser.add_argument("--minutes", type=float, default=10, help="length of the song (default: %(default)s)")
    parser.add_argument("--model", type=Path, help="trained generator (default: a small one with random weights)")
    parser.add_argument("--config", type=Path, help="its configuration")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from inference.conversion import Conversion
    from inference.song import Song
    from inference.svc import Svc

    figures = []
    print("       model      cuts  joints   zeros   late  above 256  above 1024  above 2048")
    with tempfile.TemporaryDirectory() as folder:
        song = Song(write_song(Path(folder) / "song.wav", arguments.clips, arguments.minutes))
        files = (arguments.model, arguments.config) if arguments.model else write_model(Path(folder))
        for model in ("stand-in", "network"):
            svc = Svc(*files, "cpu", max_segment=SEGMENT)
            if model == "stand-in":
                svc.convert_wav = lambda wav, *_, **__: wav[: len(wav) // HOP * HOP]
            for cuts, options in CUTS.items():
                returns_song = model == "stand-in"
                figure = {"model": model, "cuts": cuts, **measure(svc, song, Conversion(0, **options), returns_song)}
                figures.append(figure)
                print(ROW.format(**figure), flush=True)
    print(json.dumps({"benchmark": "joints", "minutes": arguments.minutes, "figures": figures}))
    return 0 if all(map(is_right, figures)) else 1


def is_right(figure: dict[str, Any]) -> bool:
    return not figure["zeros"] and not figure["late"] and all(figure[f"above_{size}"] <= 1 for size in WINDOWS)


# -- the song and the model -------------------------------------------------------------------------------------------


def write_song(path: Path, clips: Path, minutes: float) -> Path:
    """Repeat the clips in the order of their names, as phrases with silences between them."""
    from modules.audio.files import read_audio, write_audio

    files = sorted(clips.glob("*.wav"))
    if not files:
        raise UserError(f"there is no *.wav in {clips}")
    rng, parts, samples = np.random.default_rng(0), [], 0
    sounds = itertools.cycle([read_audio(file, RATE)[0] for file in files])
    for phrase, silence in zip(itertools.cycle(PHRASES), itertools.cycle(SILENCES), strict=False):
        parts += [*itertools.islice(sounds, phrase), np.zeros(int(silence * RATE), np.float32)]
        samples = sum(map(len, parts))
        if samples >= minutes * 60 * RATE:
            break
    audio = np.concatenate(parts)[: int(minutes * 60 * RATE)]
    write_audio(path, audio + NOISE * rng.standard_normal(len(audio)).astype(np.float32), RATE)
    return path


def write_model(folder: Path) -> tuple[Path, Path]:
    """Write a generator of a few thousand random weights, and its config."""
    import torch

    from modules.config import Config, save_config
    from vits.synthesizer import Synthesizer

    model = {
        "inter_channels": 16,
        "hidden_channels": 16,
        "filter_channels": 32,
        "n_layers": 1,
        "n_flow_layer": 1,
        "resblock": "2",
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "upsample_initial_channel": 32,
        "gin_channels": 4,
        "ssl_dim": 72,
        "n_speakers": 1,
        "speech_encoder": "mfcc",
        "vol_embedding": True,
    }
    config = Config.from_dict({"model": model, "spk": {"voice": 0}})
    torch.manual_seed(0)
    weights = Synthesizer(config.model).state_dict()
    weights["dec.conv_post.bias"].zero_()  # like a trained network, without a DC offset
    torch.save({"model": weights, "iteration": 1}, folder / "G_1.pth")
    save_config(config, folder / "config.json")
    return folder / "G_1.pth", folder / "config.json"


# -- measures ---------------------------------------------------------------------------------------------------------


def measure(svc: Svc, song: Song, conversion: Any, returns_song: bool) -> dict[str, Any]:
    """Measure a conversion; ``returns_song`` if the model is the stand-in."""
    from inference.pieces import lay_out, with_fades
    from modules.audio.files import read_audio

    audio = np.concatenate(list(svc.convert(song, conversion)))
    original, _ = read_audio(song.path)
    layouts = with_fades(lay_out(song, conversion, RATE, HOP), song.sampling_rate, RATE, HOP)
    parts = [(layout.is_silence, piece.faded_length, piece.overlap) for layout in layouts for piece in layout.pieces]
    sides = [is_silence for is_silence, _, _ in parts]
    joints, ends, at = [], [0], 0
    for _, length, overlap in parts:
        if at:
            joints.append(at - overlap + overlap // 2)
        at += length - overlap if at else length
    ends = [0, *joints, at]
    pieces = [ends[k : k + 2] for k, is_silence in enumerate(sides) if not is_silence]
    return {
        "joints": len(joints),
        "zeros": sum(zeros_near(audio, at, *sides[k : k + 2]) for k, at in enumerate(joints)),
        "late": max((lateness(audio[a:b], original[a:b]) for a, b in pieces), key=abs) if returns_song else None,
        **{
            f"above_{size}": 100 * share_above(audio, joints, size, original if returns_song else None)
            for size in WINDOWS
        },
    }


def zeros_near(audio: np.ndarray, joint: int, silence_before: bool, silence_after: bool) -> int:
    """Count the zeros in runs near a joint, on the sides that are not silence."""
    start, end = joint if silence_before else joint - NEAR, joint if silence_after else joint + NEAR
    is_zero = np.concatenate([[0], audio[max(0, start) : end] == 0, [0]]).astype(int)
    edges = np.flatnonzero(np.diff(is_zero))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= RUN].sum())


def lateness(audio: np.ndarray, original: np.ndarray) -> int:
    """Return the delay in samples of ``audio`` against ``original`` of the same length, by cross-correlation."""
    size = 1 << (2 * len(audio)).bit_length()
    product = np.fft.rfft(audio, size) * np.conj(np.fft.rfft(original, size))
    correlation = np.fft.irfft(product, size)
    lags = np.arange(-2 * HOP, 2 * HOP + 1)
    return int(lags[np.argmax(correlation[lags])])


def share_above(audio: np.ndarray, joints: list[int], size: int, original: np.ndarray | None = None) -> float:
    """Return the share of joints whose spectral flux is above the 99th percentile of the other positions.

    With an ``original`` a joint counts only if it has 1 % more flux than the original has there.
    """
    hop = size // 4
    values = flux_at_positions(audio, size, hop)
    at = np.clip([(joint - size // 2) // hop + 1 for joint in joints], 0, len(values) - 1)
    elsewhere = np.ones(len(values), dtype=bool)
    for index in at:
        elsewhere[max(0, index - 4) : index + 5] = False
    is_above = values[at] > np.percentile(values[elsewhere], 99)
    if original is not None:
        is_above &= values[at] > 1.01 * flux_at_positions(original, size, hop)[at]
    return float(np.mean(is_above))


def flux_at_positions(audio: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Return the flux at every ``hop`` samples: the maximum over the frames whose windows contain the position."""
    values = np.fromiter(flux(audio, size, hop), dtype=np.float64)
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, 2), 5).max(axis=1)


def flux(audio: np.ndarray, size: int, hop: int) -> Iterator[float]:
    """Yield the sum of all increases in magnitude from each frame of ``size`` samples to the next."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[::hop]
    window, before = np.hanning(size).astype(np.float32), None
    for first in range(0, len(frames), 4096):
        magnitudes = np.abs(np.fft.rfft(frames[first : first + 4096] * window)).astype(np.float32)
        magnitudes = magnitudes if before is None else np.concatenate([before, magnitudes])
        before = magnitudes[-1:]
        yield from np.maximum(np.diff(magnitudes, axis=0), 0).sum(axis=1).tolist()


if __name__ == "__main__":
    raise SystemExit(main())
