"""Measure the accuracy of each F0 predictor on singing with known F0: clean, breathy, noisy and with accompaniment.

The singer is demonstration/singer.py, in three registers from 80 to 1000 Hz. By default every predictor is measured
that needs no file or whose file is under pretrain/. The measures are mir_eval's. Over the voiced frames they are the
raw pitch accuracy within 50 cents, the raw chroma accuracy (which ignores octaves), and their difference, the octave
errors; over all frames, the share with wrong voicing. F0 is interpolated across unvoiced frames, as for training.

Then 80 bright high notes are held, 440 to 880 Hz, on five vowels with four source tilts. The script prints the same
measures, and the number of notes of which more than half is an octave off. With --speech, recordings are measured too:
over the frames where crepe and harvest agree within 50 cents, the share within 50 cents of crepe. The last line is
JSON.

    python benchmarks/f0_accuracy.py
    python benchmarks/f0_accuracy.py --predictors fcpe rmvpe --thresholds 0.006 0.05 --seconds 10
    python benchmarks/f0_accuracy.py --predictors pm fcpe --octave_costs 0.03 0.1 --speech recordings/
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402
from modules.f0 import F0_PREDICTORS, F0Predictor, build_f0_predictor  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from demonstration.singer import Note, Song

REGISTERS = {"low": (40, 52), "middle": (52, 67), "high": (67, 83)}  # MIDI: 82-165, 165-392, 392-988 Hz
FORMANTS_AND_TILT = {"low": (0.92, 8.5), "middle": (1.12, 6.0), "high": (1.12, 6.0)}
CLEAR, BREATHY = 0.1, 0.4  # level of the breath; it does not depend on pitch, and neither does the singer's loudness
NOISES = {"noise 30 dB": 30, "noise 10 dB": 10, "noise 0 dB": 0}
CONDITIONS = ("clean", "vibrato", "glides", "breathy", *NOISES, "accompaniment 0 dB")
HELD_TILTS, HELD_PITCHES = (3.0, 5.0, 7.0, 9.0), (69, 74, 78, 81)  # dB per octave; MIDI: 440, 587, 740, 880 Hz
HELD = "held high notes"
MEASURES = ("pitch", "chroma", "octave", "voicing")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictors", nargs="+", help="default: all that have their weights")
    parser.add_argument(
        "--thresholds", type=float, nargs="+", default=[0.05], help="voicing thresholds of the networks (default: 0.05)"
    )
    parser.add_argument(
        "--octave_costs", type=float, nargs="+", default=[], help="also measure pm with these octave costs"
    )
    parser.add_argument("--speech", type=Path, metavar="DIR", help="recordings of speech to measure too")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each song (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of melodies and noises (default: %(default)s)")
    parser.add_argument("-d", "--device", default="cpu", help="device of the networks (default: cpu)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    import numpy as np

    arguments = build_parser().parse_args(argv)
    songs = [*make_songs(arguments.seconds, arguments.seed), *make_held_notes(arguments.seed)]
    speech = read_speech(arguments.speech) if arguments.speech else []
    figures, speech_figures = [], []
    print(f"{'predictor':<14} {'condition':<18} " + " ".join(f"{name:>7}" for name in MEASURES))
    for name, predictor in predictors(arguments):
        rows = [(condition, register, measure(predictor, song)) for condition, register, song in songs]
        figures += [
            {"predictor": name, "condition": condition, "register": register, **row}
            for condition, register, row in rows
        ]
        for group in (*CONDITIONS, *REGISTERS, "all", HELD):
            chosen = [
                row
                for condition, register, row in rows
                if group in (condition, register) or (group == "all" and condition != HELD)
            ]
            means = [100 * np.mean([row[measure] for row in chosen]) for measure in MEASURES]
            print(f"{name:<14} {group:<18} " + " ".join(f"{mean:>7.1f}" for mean in means), flush=True)
        print(f"{name:<14} {sum(row['octave'] > 0.5 for row in chosen)} of {len(chosen)} held notes an octave off")
        if speech:
            pitch, voiced = measure_speech(predictor, speech)
            speech_figures.append({"predictor": name, "pitch": pitch, "voiced": voiced})
            print(f"{name:<14} {'speech':<18} {100 * pitch:>7.1f}, {100 * voiced:.1f} voiced", flush=True)
    results = {"figures": figures, "speech": speech_figures}
    print(json.dumps({"benchmark": "f0_accuracy", "seconds": arguments.seconds, **results}))
    return 0


def predictors(arguments: argparse.Namespace) -> Iterator[tuple[str, F0Predictor]]:
    """Yield the requested predictors, or all that have their weights, with their names.

    Networks come once for each threshold, and pm once more for each octave cost.
    """
    keys, thresholds, device = arguments.predictors, arguments.thresholds, arguments.device
    for cost in arguments.octave_costs:
        praat = build_f0_predictor("pm")
        praat.octave_cost = cost
        yield f"pm {cost}", praat
    for key in keys or F0_PREDICTORS:
        row = F0_PREDICTORS[key]
        if keys is None and row.weight and not row.weight_is_optional and not (ROOT / "pretrain" / row.weight).exists():
            continue
        for threshold in thresholds if row.uses_threshold else [0.05]:
            name = f"{key} {threshold}" if row.uses_threshold and len(thresholds) > 1 else key
            yield name, build_f0_predictor(key, device=device, threshold=threshold, folder=ROOT / "pretrain")


def make_songs(seconds: float, seed: int) -> Iterator[tuple[str, str, Song]]:
    """Yield (condition, register, song) for every condition in every register."""
    import numpy as np

    from demonstration.singer import Voice, random_phrase, sing

    for register, (low, high) in REGISTERS.items():
        rng = np.random.default_rng([seed, low])
        notes = random_phrase(rng, seconds, low, high)
        voice = Voice(*FORMANTS_AND_TILT[register], breath=CLEAR)
        clean = sing(voice, notes, seed)
        yield "clean", register, clean
        yield "vibrato", register, sing(voice, [replace(note, vibrato=1.0) for note in notes], seed)
        yield "glides", register, sing(voice, glides(rng, seconds, low, high), seed)
        yield "breathy", register, sing(replace(voice, breath=BREATHY), notes, seed)
        for condition, snr in NOISES.items():
            yield condition, register, beside(clean, rng.standard_normal(len(clean.audio)), snr)
        yield "accompaniment 0 dB", register, beside(clean, chords(rng, len(clean.audio)), 0)


def make_held_notes(seed: int) -> Iterator[tuple[str, str, Song]]:
    """Yield one note of a second for each source tilt, vowel and pitch, in the form of ``make_songs``."""
    from demonstration.singer import VOWELS, Note, Voice, sing

    for tilt in HELD_TILTS:
        for vowel in VOWELS:
            for pitch in HELD_PITCHES:
                notes = [Note(pitch, 0.15, ""), Note(pitch, 1.0, vowel), Note(pitch, 0.15, "")]
                voice = Voice(FORMANTS_AND_TILT["high"][0], tilt, CLEAR)
                yield HELD, "", sing(voice, notes, seed + int(pitch + 10 * tilt))


def glides(rng: np.random.Generator, seconds: float, low: float, high: float) -> list[Note]:
    """Make one vowel that slides from pitch to pitch, by at most an octave per second, with rests between."""
    import numpy as np

    from demonstration.singer import Note

    notes, pitch = [Note(low, 0.15, "")], rng.uniform(low, high)
    while sum(note.duration for note in notes) < seconds:
        target = rng.uniform(low, high)
        steps = max(round(rng.uniform(0.5, 1.0) / 0.05), round(abs(target - pitch) / 0.6))
        notes += [Note(step, 0.05, "a", 0.0) for step in np.linspace(pitch, target, steps)]
        notes.append(Note(target, 0.2, ""))
        pitch = target
    return notes


def beside(song: Song, other: np.ndarray, snr: float) -> Song:
    """Mix the song with another sound, ``snr`` dB below it by power."""
    import numpy as np

    scale = np.sqrt(np.mean(song.audio**2) / np.mean(other**2) / 10 ** (snr / 10))
    return replace(song, audio=(song.audio + scale * other).astype(np.float32))


def chords(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Make ``samples`` of plucked chords with a bass, two per second, each with a hi-hat."""
    import numpy as np

    from demonstration.singer import SAMPLING_RATE

    audio, beat = np.zeros(samples), SAMPLING_RATE // 2
    for number, start in enumerate(range(0, samples, beat)):
        time = np.arange(min(2 * beat, samples - start)) / SAMPLING_RATE
        root = (45, 50, 43, 48)[number // 4 % 4] + rng.uniform(-0.2, 0.2)
        for pitch in (root - 12, root, root + 4, root + 7, root + 12):
            f0 = 440 * 2 ** ((pitch - 69) / 12)
            for harmonic in range(1, 9):
                decay = np.exp(-time * (3 + harmonic))
                audio[start : start + len(time)] += np.sin(2 * np.pi * f0 * harmonic * time) * decay / harmonic
        hat = time[: beat // 4]
        audio[start : start + len(hat)] += rng.standard_normal(len(hat)) * np.exp(-hat * 80)
    return audio


def measure(predictor: F0Predictor, song: Song) -> dict[str, float]:
    """Return the four measures of one song, as shares."""
    import numpy as np
    from mir_eval import melody

    f0, uv = predictor(song.audio, len(song.f0))
    truth, found = (melody.hz2cents(np.asarray(curve, float)) for curve in (song.f0, f0))
    voiced = song.voiced.astype(float)
    pitch = melody.raw_pitch_accuracy(voiced, truth, uv.astype(float), found)
    chroma = melody.raw_chroma_accuracy(voiced, truth, uv.astype(float), found)
    wrong = np.mean(song.voiced != (uv > 0))
    return {"pitch": pitch, "chroma": chroma, "octave": chroma - pitch, "voicing": float(wrong)}


def read_speech(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each recording at 44.1 kHz with the F0 (Hz) in which crepe and harvest agree, 0 elsewhere."""
    import numpy as np
    import torch

    from demonstration.singer import SAMPLING_RATE
    from modules.audio.files import read_audio, sinc_resample

    judges = [build_f0_predictor(key) for key in ("crepe", "harvest")]
    recordings = []
    for path in sorted(folder.glob("*.wav")):
        audio, rate = read_audio(path)
        audio = sinc_resample(torch.from_numpy(audio), rate, SAMPLING_RATE).numpy()
        (f0, uv), (other, other_uv) = (judge(audio) for judge in judges)
        agreed = (uv > 0) & (other_uv > 0) & (np.abs(cents_between(f0, other)) < 50)
        recordings.append((audio, np.where(agreed, f0, 0)))
    return recordings


def measure_speech(predictor: F0Predictor, recordings: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Return two shares of the frames with an agreed F0: those found within 50 cents, and those voiced."""
    import numpy as np

    right, voiced = [], []
    for audio, agreed in recordings:
        f0, uv = predictor(audio)
        right.append(np.abs(cents_between(f0, agreed))[agreed > 0] < 50)
        voiced.append(uv[agreed > 0])
    return float(np.concatenate(right).mean()), float(np.concatenate(voiced).mean())


def cents_between(f0: np.ndarray, other: np.ndarray) -> np.ndarray:
    import numpy as np

    return 1200 * np.log2(np.maximum(f0, 1) / np.maximum(other, 1))


if __name__ == "__main__":
    raise SystemExit(main())
