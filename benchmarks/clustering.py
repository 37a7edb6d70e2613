"""Measure how much faster our k-means is than scikit-learn's KMeans, and how good its centres are.

Both cluster the same features: synthetic ones, distributed like a speech encoder's, or with --dataset those of a
prepared data set. The inertia is the sum of squared distances of the features to their nearest centre, by exhaustive
search. Times are wall time and processor time. Ratios of times above 1 mean that ours is faster, a ratio of inertias
below 1 that its centres are better. The last line is JSON.

    python benchmarks/clustering.py
    python benchmarks/clustering.py --features 60000 --centres 10000    # full size: half an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import UserError, script  # noqa: E402

if TYPE_CHECKING:
    import numpy as np


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=6000, help="number of features (default: %(default)s)")
    parser.add_argument("--centres", type=int, default=1000, help="number of centres (default: %(default)s)")
    parser.add_argument("--size", type=int, default=768, help="size of a feature (default: %(default)s)")
    parser.add_argument("--dataset", help="folder of one speaker with *.wav.soft.pt, to take the first --features from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run of both for each seed (default: 0)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from sklearn.cluster import KMeans

    from cluster.kmeans import k_means

    features, count = load(arguments), arguments.centres
    ways = {
        "ours": lambda seed: k_means(features, count, seed=seed),
        "scikit-learn": lambda seed: KMeans(count, n_init=1, random_state=seed).fit(features).cluster_centers_,
    }
    figures = []
    print("seed  way             wall s  processor s   inertia")
    for seed in arguments.seeds:
        for way, run in ways.items():
            figure = {"seed": seed, "way": way, **measure(run, features, seed)}
            figures.append(figure)
            cells = f"{figure['wall_s']:>8.1f}  {figure['processor_s']:>11.1f}  {figure['inertia']:>8.6g}"
            print(f"{seed:>4}  {way:<13} {cells}", flush=True)
    ratios = compare(figures)
    print(", ".join(f"{name} {value:.4g}" for name, value in ratios.items()))
    shape = {"features": len(features), "size": features.shape[1], "centres": count}
    print(json.dumps({"benchmark": "clustering", **shape, **ratios, "figures": figures}))
    return 0


def load(arguments: argparse.Namespace) -> np.ndarray:
    """Return the features to cluster: (features, size). Raises UserError if --dataset has too few."""
    if not arguments.dataset:
        from benchmarks.speechlike import speechlike_features

        return speechlike_features(arguments.features, arguments.size)
    from cluster.features import find_features, read_features

    ((name, files),) = find_features([Path(arguments.dataset)]).items()
    features = read_features(files, name)[: arguments.features]
    if len(features) <= arguments.centres:
        raise UserError(f"{arguments.dataset} holds {len(features)} features, too few for {arguments.centres} centres")
    return features


def measure(run: Callable[[int], np.ndarray], features: np.ndarray, seed: int) -> dict[str, float]:
    """Run one clustering; returns its wall and processor time in seconds, and the inertia of its centres."""
    import faiss
    import numpy as np

    wall, processor = time.perf_counter(), time.process_time()
    centres = np.ascontiguousarray(run(seed), dtype=np.float32)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    inertia = float(faiss.knn(features, centres, 1)[0].sum(dtype=np.float64))
    return {"wall_s": wall, "processor_s": processor, "inertia": inertia}


def compare(figures: list[dict]) -> dict[str, float]:
    """Return scikit-learn's times divided by ours, and our inertia divided by scikit-learn's, summed over the seeds."""
    total = {
        (way, key): sum(figure[key] for figure in figures if figure["way"] == way)
        for way in ("ours", "scikit-learn")
        for key in ("wall_s", "processor_s", "inertia")
    }
    return {
        "wall_ratio": total["scikit-learn", "wall_s"] / total["ours", "wall_s"],
        "processor_ratio": total["scikit-learn", "processor_s"] / total["ours", "processor_s"],
        "inertia_ratio": total["ours", "inertia"] / total["scikit-learn", "inertia"],
    }


if __name__ == "__main__":
    raise SystemExit(main())
