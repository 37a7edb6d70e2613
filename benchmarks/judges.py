"""Measure what each judge of evaluate.py costs: seconds for ten clips of ten seconds, and memory.

    python benchmarks/judges.py
    OMP_NUM_THREADS=2 python benchmarks/judges.py --speech folder

The clips are recordings of ``--speech``, repeated and cut to ten seconds, or without it songs of a synthetic singer.
Each judge, and the figures that need none, runs in a process of its own. "Load" includes the import of its packages;
"memory" is the peak above a process that holds the same clips and no judge. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from modules.console import script

CLIPS, SECONDS = 10, 10
SIGNALS, NOTHING, SHIFT = "signals", "nothing", "WORLD"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder with recordings (default: synthetic songs)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, read_clips(args.speech))))
        return 0
    from evaluation.judges import JUDGES

    speech = ["--speech", str(args.speech)] if args.speech else []
    rows = {}
    print(f"{'':10s}{'load, s':>9s}{'ten clips, s':>14s}{'processor, s':>14s}{'memory, MiB':>13s}")
    for key in (NOTHING, SIGNALS, SHIFT, *JUDGES):
        if key in JUDGES.rows and JUDGES[key].missing():
            print(f"{key:10s}  not installed: {JUDGES[key].install}", flush=True)
            continue
        run = subprocess.run(
            [sys.executable, __file__, "--one", key, *speech], capture_output=True, text=True, check=True
        )
        rows[key] = row = json.loads(run.stdout.splitlines()[-1])
        memory = row["memory"] - rows[NOTHING]["memory"]
        print(f"{key:10s}{row['load']:9.1f}{row['wall']:14.1f}{row['processor']:14.1f}{memory:13.0f}", flush=True)
    print(json.dumps({"benchmark": "judges", "threads": os.environ.get("OMP_NUM_THREADS"), "rows": rows}))
    return 0


def read_clips(speech: Path | None) -> list[np.ndarray]:
    """Return CLIPS sounds of SECONDS at 44.1 kHz."""
    from evaluation.case import RATE, Sound, find_sounds

    length = SECONDS * RATE
    if speech:
        audio = np.concatenate([Sound.read(path).audio for path in find_sounds(speech, "speech")])
        audio = np.tile(audio, -(-CLIPS * length // len(audio)))
    else:
        from demonstration.singer import DARK, random_phrase, sing

        song = sing(DARK, random_phrase(np.random.default_rng(0), 2 * SECONDS, 48, 60), seed=0).audio
        audio = np.tile(song, -(-CLIPS * length // len(song)))
    noise = 1e-4 * np.random.default_rng(0).standard_normal(CLIPS * length)  # so that no clip is the same
    return list((audio[: CLIPS * length] + noise).astype(np.float32).reshape(CLIPS, length))


def measure(key: str, clips: list[np.ndarray]) -> dict[str, float]:
    """Return seconds of loading, wall-clock and processor seconds for the clips, and the process's peak in MiB."""
    from evaluation.baseline import move_voice
    from evaluation.cache import Cache
    from evaluation.case import RATE, Excerpt, Sound
    from evaluation.judges import JUDGES, prepare
    from evaluation.signal_figures import SignalFigures
    from modules.memory import peak_memory

    heard = [prepare(clip, RATE) for clip in clips]
    began = time.perf_counter()
    if key == SIGNALS:
        figures, pair = SignalFigures(Cache()), [Sound(clips[0])] * 2
        figures.of(pair[0], Excerpt("", pair[0], pair[1], pair[1]))  # imports its packages
        sounds = [Sound(clip) for clip in clips]
        work = [lambda sound=sound: figures.of(sound, Excerpt("", sound, sounds[0], sounds[0])) for sound in sounds]
    elif key == SHIFT:
        work = [lambda clip=clip: move_voice(clip, RATE, 3.0) for clip in clips]
    elif key == NOTHING:
        work = []
    else:
        judge = JUDGES[key].load()()
        judge(heard[0][:16000])  # imports and compiles what is loaded on first use
        work = [lambda audio=audio: judge(audio) for audio in heard]
    loaded, processor = time.perf_counter(), time.process_time()
    for one in work:
        one()
    return {
        "load": loaded - began, "wall": time.perf_counter() - loaded, "processor": time.process_time() - processor,
        "memory": 1024 * (peak_memory(torch.device("cpu")) or 0),
    }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
