"""Measure the recall of the feature index, its effect on the mixed features, and the time that it saves.

The index is built as in train_index.py, from synthetic features distributed like a speech encoder's; the queries are
units of the same voice with other content. The exhaustive search covers all lists of the index. An index without lists
("flat"), which faiss searches by matrix products, is timed too. For each --nprobe:

    recall      share of the true 8 nearest that are among the 8 found
    difference  relative L2 distance of the mixed features from those of the exhaustive search
    ratios      time of the exhaustive and of the flat search, divided by the time of this search

The last line is JSON.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --features 100000 --nprobe 1 4 16
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
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.console import script  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from cluster.retrieval import FeatureIndex

ROW = "{nprobe:>6}  {recall:>6.3f}  {difference:>10.4f}  {seconds:>7.4f}  {ratio:>6.1f}  {flat_ratio:>14.1f}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=20000, help="features in the index (default: %(default)s)")
    parser.add_argument("--units", type=int, default=860, help="units of a query (default: %(default)s, 10 s)")
    parser.add_argument("--size", type=int, default=768, help="size of a feature (default: %(default)s)")
    parser.add_argument("--nprobe", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="default: 1 2 4 8 16")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the fastest counts (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    import faiss
    import torch

    from benchmarks.speechlike import speechlike_features
    from cluster.index_file import write_indexes
    from cluster.retrieval import NEIGHBOURS, build_index, load_feature_index

    features = speechlike_features(arguments.features, arguments.size)
    units = torch.from_numpy(speechlike_features(arguments.units, arguments.size, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feature_and_index.pkl"
        write_indexes(path, [(0, build_index(features))])
        indexes = [load_feature_index(path, nprobe) for nprobe in arguments.nprobe]
        exhaustive = load_feature_index(path, len(features))
    searches = [functools.partial(index.neighbours, units, 0) for index in (*indexes, exhaustive)]
    *times, exhaustive_s, flat_s = measure(
        [*searches, lambda: faiss.knn(units.numpy(), features, NEIGHBOURS)], arguments.rounds
    )
    lists = exhaustive.indexes[0].nlist
    print(f"{len(features)} features in {lists} lists, {len(units)} units")
    print(f"exhaustive {exhaustive_s:.3f} s, flat {flat_s:.3f} s")
    print("nprobe  recall  difference  seconds   ratio   ratio to flat")
    figures = []
    for index, seconds in zip(indexes, times, strict=True):
        figure = {"nprobe": index.indexes[0].nprobe, **compare(index, exhaustive, units), "seconds": seconds}
        figures.append(figure | {"ratio": exhaustive_s / seconds, "flat_ratio": flat_s / seconds})
        print(ROW.format(**figures[-1]))
    sizes = {"features": len(features), "size": arguments.size, "units": len(units), "lists": lists}
    times = {"exhaustive_s": exhaustive_s, "flat_s": flat_s}
    print(json.dumps({"benchmark": "retrieval", **sizes, **times, "figures": figures}))
    return 0


def measure(searches: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the seconds that each search takes in its fastest round."""
    times = [[] for _ in searches]
    for _ in range(rounds):
        for search, found in zip(searches, times, strict=True):
            began = time.perf_counter()
            search()
            found.append(time.perf_counter() - began)
    return [min(found) for found in times]


def compare(index: FeatureIndex, exhaustive: FeatureIndex, units: Tensor) -> dict[str, float]:
    """Return the index's recall, and the relative difference of its mixed features, from the exhaustive search."""
    from cluster.retrieval import NEIGHBOURS

    found, wanted = (one.indexes[0].search(units.numpy(), NEIGHBOURS)[1] for one in (index, exhaustive))
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True))
    mixed, true = index.neighbours(units, 0), exhaustive.neighbours(units, 0)
    return {"recall": hits / wanted.size, "difference": float((mixed - true).norm() / true.norm())}


if __name__ == "__main__":
    raise SystemExit(main())
