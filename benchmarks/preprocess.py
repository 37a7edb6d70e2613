"""How many clips a second does each F0 predictor and speech encoder prepare, and what does loading it cost apart?

Makes clips of its own in a temporary folder. Every predictor is measured, and every encoder whose weight file is under
pretrain/ or that needs none. The last line is JSON.

    python benchmarks/preprocess.py
    python benchmarks/preprocess.py --clips 16 --seconds 8 --config configs/config.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402

if TYPE_CHECKING:
    from modules.config import Config
    from preparation.features import FeatureJob


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each (default: %(default)s)")
    parser.add_argument("--config", default=str(ROOT / "configs_template/config_template.json"), help="configuration")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="worker counts (default: 1 2)")
    parser.add_argument("-d", "--device", help="cpu, cuda, mps (default: the best there is)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from modules.config import load_config

    figures = []
    print("what                 workers  clips/s  x real time  load s  loads")
    with tempfile.TemporaryDirectory() as folder:
        clips = list(make_clips(Path(folder), arguments.clips, arguments.seconds))
        for what, job in jobs(load_config(arguments.config), arguments.device):
            for workers in arguments.workers:
                figure = {"what": what, "workers": workers, **measure(job, clips, workers)}
                figures.append(figure)
                print(
                    f"{what:<20} {workers:>7}  {figure['clips_per_second']:>7.2f}  {figure['times_real_time']:>11.1f}"
                    f"  {figure['load_seconds']:>6.2f}  {figure['loads']:>5}",
                    flush=True,
                )
    print(json.dumps({"benchmark": "preprocess", "clip_seconds": arguments.seconds, "figures": figures}))
    return 0


def make_clips(folder: Path, count: int, seconds: float) -> Iterator[Path]:
    """Tones of a moving pitch with overtones, noise and pauses, for which every predictor has work to do."""
    import numpy as np

    from modules.audio import write_audio

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
    """Each predictor and each encoder as a job of its own."""
    from modules.f0 import F0_PREDICTORS
    from preparation.features import PRETRAIN, FeatureJob, make_recipes
    from vencoder import ENCODERS

    for key in F0_PREDICTORS:
        yield f"f0 {key}", FeatureJob(config, key, device, make_recipes(config, key), frozenset(["f0"]))
    for key, row in ENCODERS.rows.items():
        if row.target and (row.weight is None or (PRETRAIN / row.weight).exists()):
            config.model.speech_encoder, config.model.ssl_dim = key, row.ssl_dim
            yield f"units {key}", FeatureJob(config, "pm", device, make_recipes(config, "pm"), frozenset(["units"]))


def measure(job: FeatureJob, clips: Sequence[Path], workers: int) -> dict[str, float]:
    """Make all clips anew. The clock runs from the first clip's start to the last one's end: loading is apart."""
    from modules.clip_files import ClipFiles
    from preparation.features import Task
    from preparation.fingerprints import check
    from preparation.workers import run_job

    recipes = {name: job.recipes[name] for name in job.needed}
    for clip in clips:
        ClipFiles(clip).fingerprint.unlink(missing_ok=True)
    results = list(run_job(job, [Task(ClipFiles(clip), check(ClipFiles(clip), recipes)) for clip in clips], workers))
    errors = [result.error for result in results if result.error]
    if errors:
        raise RuntimeError(errors[0])
    elapsed = max(result.ended for result in results) - min(result.began for result in results)
    loads = {result.rank: result.load_seconds for result in results}
    return {
        "clips_per_second": len(clips) / elapsed,
        "times_real_time": sum(result.seconds for result in results) / elapsed,
        "load_seconds": max(loads.values()),
        "loads": len(loads),
    }


if __name__ == "__main__":
    raise SystemExit(main())
