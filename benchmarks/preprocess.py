"""Measure how many clips per second each F0 predictor and speech encoder prepares, and how long it takes to load.

The clips are generated in a temporary folder. Every predictor is measured (rmvpe with random weights if pretrain/ has
none), and every encoder that needs no weight file or whose file is under pretrain/. "rebuilt" is the same predictor,
built again for each clip as in so-vits-svc 4.1. "loads" counts how often all workers together loaded a pitch network
(pm, dio and harvest have none; encoders are not counted). The last line is JSON.

    python benchmarks/preprocess.py
    python benchmarks/preprocess.py --clips 16 --seconds 8 --config configs/config.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402

if TYPE_CHECKING:
    from modules.config import Config
    from preparation.feature_job import FeatureJob


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8, help="number of clips (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--config", default=str(ROOT / "configs_template/config_template.json"), help="configuration")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="worker counts (default: 1 2)")
    parser.add_argument("-d", "--device", help="cpu, cuda, mps (default: the best available)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from modules.config import load_config

    figures = []
    print("what                 workers  clips/s  x real time  load s  loads")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # pretrain/ is looked for there, by workers too
        lay_out_weights(Path("pretrain"))
        clips = list(make_clips(Path(folder), arguments.clips, arguments.seconds))
        for what, job in jobs(load_config(arguments.config), arguments.device):
            runs = [(what, workers, measure(job, clips, workers)) for workers in arguments.workers]
            if "f0" in job.needed:
                runs.append((f"{what} rebuilt", 1, measure_rebuilt(job, clips)))
            for name, workers, figure in runs:
                figures.append({"what": name, "workers": workers, **figure})
                print(
                    f"{name:<20} {workers:>7}  {figure['clips_per_second']:>7.2f}  {figure['times_real_time']:>11.1f}"
                    f"  {figure['load_seconds']:>6.2f}  {figure['loads']:>5}",
                    flush=True,
                )
        os.chdir(ROOT)
    print(json.dumps({"benchmark": "preprocess", "clip_seconds": arguments.seconds, "figures": figures}))
    return 0


def lay_out_weights(folder: Path) -> None:
    """Link the weight files of pretrain/, and write random ones, which are as fast, for rmvpe if it is missing."""
    from benchmarks.f0_speed import write_random_weights

    folder.mkdir()
    for path in (ROOT / "pretrain").iterdir():
        (folder / path.name).symlink_to(path)
    if not (folder / "rmvpe.pt").exists():
        write_random_weights("rmvpe", folder / "rmvpe.pt")


def make_clips(folder: Path, count: int, seconds: float) -> Iterator[Path]:
    """Write ``count`` tones of moving pitch with overtones, noise and pauses, and yield their paths."""
    import numpy as np

    from modules.audio.files import write_audio

    generator = np.random.default_rng(0)
    time = np.arange(round(seconds * 44100)) / 44100
    for number in range(count):
        f0 = 150 * 2 ** (number % 12 / 12) * (1 + 0.03 * np.sin(2 * np.pi * 5.5 * time))
        phase = 2 * np.pi * np.cumsum(f0) / 44100
        tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
        voiced = np.sin(2 * np.pi * 0.4 * time) > -0.6
        path = folder / f"{number}.wav"
        write_audio(path, 0.1 * tone * voiced + 0.003 * generator.standard_normal(len(time)), 44100)
        yield path


def jobs(config: Config, device: str | None) -> Iterator[tuple[str, FeatureJob]]:
    """Yield the name and the job of each predictor, and of each encoder that has its weights."""
    from modules.f0 import F0_PREDICTORS
    from preparation.feature_job import PRETRAIN, FeatureJob
    from preparation.features import make_recipes
    from vencoder import ENCODERS

    for key in F0_PREDICTORS:
        yield f"f0 {key}", FeatureJob(config, key, device, make_recipes(config, key), frozenset(["f0"]))
    for key, row in ENCODERS.rows.items():
        if row.weight is None or (PRETRAIN / row.weight).exists():
            config.model.speech_encoder, config.model.ssl_dim = key, row.ssl_dim
            yield f"units {key}", FeatureJob(config, "pm", device, make_recipes(config, "pm"), frozenset(["units"]))


@dataclass
class Counting:
    """Adds to each result of a job the number of pitch networks that its worker has loaded for it so far."""

    job: FeatureJob
    before: int = 0

    def set_up(self, rank: int, workers: int) -> None:
        self.before = loads()
        self.job.set_up(rank, workers)

    def __call__(self, task: Any) -> tuple[Any, int]:
        return self.job(task), loads() - self.before

    def worker_died(self, task: Any, reason: str) -> tuple[Any, int]:
        return self.job.worker_died(task, reason), 0


def loads() -> int:
    """Return how often this process has loaded a pitch network since its caches were cleared."""
    return sum(cached.cache_info().misses for cached in caches())


def caches() -> tuple[Callable, ...]:
    """Return the cached functions that load the pitch networks."""
    from modules.f0 import crepe, fcpe, rmvpe

    return crepe._network, fcpe.load_network, rmvpe.load_network


def measure(job: FeatureJob, clips: Sequence[Path], workers: int) -> dict[str, float]:
    """Prepare all clips; measure from the start of the first clip to the end of the last, without loading."""
    from modules.data.features import ClipFiles
    from preparation.feature_job import Task
    from preparation.fingerprints import check
    from preparation.workers import run_job

    recipes = {name: job.recipes[name] for name in job.needed}
    for clip in clips:
        ClipFiles(clip).fingerprint.unlink(missing_ok=True)
    tasks = [Task(ClipFiles(clip), check(ClipFiles(clip), recipes), 0.0) for clip in clips]
    counted = list(run_job(Counting(job), tasks, workers))
    results = [result for result, _ in counted]
    errors = [result.error for result in results if result.error]
    if errors:
        raise RuntimeError(errors[0])
    elapsed = max(result.ended for result in results) - min(result.began for result in results)
    loaded = {result.rank: count for result, count in counted}  # the last count of each worker
    return {
        "clips_per_second": len(clips) / elapsed,
        "times_real_time": sum(result.seconds for result in results) / elapsed,
        "load_seconds": max(result.load_seconds for result in results),
        "loads": sum(loaded.values()),
    }


def measure_rebuilt(job: FeatureJob, clips: Sequence[Path]) -> dict[str, float]:
    """Measure one process that builds the predictor for every clip; the time includes building and predicting."""
    from modules.audio.files import read_audio

    seconds, loading, loaded = 0.0, 0.0, 0
    began = time.perf_counter()
    for clip in clips:
        for cached in caches():
            cached.cache_clear()
        before = time.perf_counter()
        job.set_up(0, 1)
        loading += time.perf_counter() - before
        audio, rate = read_audio(clip)
        job.predictor(audio)
        seconds += len(audio) / rate
        loaded += loads()
    elapsed = time.perf_counter() - began
    return {
        "clips_per_second": len(clips) / elapsed,
        "times_real_time": seconds / elapsed,
        "load_seconds": loading / len(clips),
        "loads": loaded,
    }


if __name__ == "__main__":
    raise SystemExit(main())
