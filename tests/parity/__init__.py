"""Comparing our networks with numbers that the original program computed.

A compact form of them lies in ``tests/parity_data/``; ``$SVC_PARITY`` names a folder with the full arrays, which are
then compared element by element. Constructor arguments, seeds and inputs are read from there, never written into a
test.

The modules of this package each export two tables, whose keys are fixture names or beginnings of names:

- ``ADAPTERS``: function(ins: dict of arrays, meta: the JSON) -> dict of outputs, named like the fixture's;
- ``STATE_DICTS``: function(meta) -> {name: shape} of what our module saves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.parity.fixtures import CompactFixtures, FullFixtures, Outputs
from tests.parity.projections import Projections

DATA = Path(__file__).resolve().parents[1] / "parity_data"
FULL = os.environ.get("SVC_PARITY")
FIXTURES = FullFixtures(Path(FULL)) if FULL else CompactFixtures(DATA)


def names() -> list[str]:
    """All fixtures but the whole song."""
    return FIXTURES.names()


def load(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], Outputs]:
    """A fixture's JSON, its inputs and its wanted outputs."""
    return FIXTURES.meta(name), FIXTURES.inputs(name), FIXTURES.outputs(name)


def load_meta(name: str) -> dict[str, Any]:
    """A fixture's JSON."""
    return FIXTURES.meta(name)


class Arguments(Mapping):
    """The constructor arguments of a fixture. ``unread`` are those that nobody asked for."""

    def __init__(self, values: Mapping[str, Any]):
        self.values_by_name, self.unread = dict(values), set(values)

    def __getitem__(self, name: str) -> Any:
        value = self.values_by_name[name]
        self.unread.discard(name)
        return value

    def without_effect(self, *names: str) -> None:
        """Say that no value of these arguments could change the results."""
        self.unread.difference_update(names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def pick(table: Mapping[str, Callable], name: str) -> Callable | None:
    """The entry whose key is the longest beginning of ``name``; None when there is none."""
    keys = [key for key in table if name.startswith(key)]
    return table[max(keys, key=len)] if keys else None


@contextlib.contextmanager
def zeroed_draws(meta: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Every random draw of torch gives zero, or the low end of its range, with a generator or without.

    Given a fixture's JSON, only if the original's draws were zeroed for it too.
    """
    if meta is not None and not meta.get("draws_zeroed"):
        yield
        return

    def shaped(*size, generator=None, **settings):
        return torch.zeros(*size, **settings)

    def like(tensor, *, generator=None, **settings):
        return torch.zeros_like(tensor, **settings)

    def whole(low, *rest, generator=None, **settings):
        # torch.randint(high, size) or torch.randint(low, high, size)
        low, size = (0, rest[0]) if len(rest) == 1 else (low, rest[1])
        return torch.full(size, low, **{"dtype": torch.int64, **settings})

    def uniform_(tensor, a=0.0, b=1.0, *, generator=None, **other):
        return tensor.fill_(other.get("from", a))

    def normal_(tensor, mean=0.0, std=1.0, *, generator=None):
        return tensor.fill_(mean)

    with contextlib.ExitStack() as stack:
        for name, stand_in in {"randn": shaped, "rand": shaped, "randn_like": like, "rand_like": like}.items():
            stack.enter_context(mock.patch.object(torch, name, stand_in))
        stack.enter_context(mock.patch.object(torch, "randint", whole))
        stack.enter_context(mock.patch.object(torch.Tensor, "uniform_", uniform_))
        stack.enter_context(mock.patch.object(torch.Tensor, "normal_", normal_))
        yield


def failures(got: Mapping[str, Any], wanted: Outputs, meta: Mapping[str, Any]) -> list[str]:
    """One line for each wanted output that is missing or beyond its tolerance; either of the two bounds suffices."""
    lines = []
    for name, want in wanted.items():
        if name not in got:
            lines.append(f"{name}: missing")
            continue
        tolerance = meta.get("tolerance_for", {}).get(name, meta["tolerance"])
        worst, relative = errors(got[name], want)
        if not (worst <= tolerance["max_abs"] or relative <= tolerance["rel_l2"]):
            lines.append(f"{name}: max_abs {worst:.3g}, rel_l2 {relative:.3g}; allowed {tolerance}")
    return lines


def errors(got: Any, want: np.ndarray | Projections) -> tuple[float, float]:
    """(largest absolute error, relative L2 error); infinite when shapes or the places of NaN and Inf differ.

    Of projections, (NaN, the estimate of the relative L2 error).
    """
    got = np.asarray(got.detach().cpu() if isinstance(got, torch.Tensor) else got, dtype=np.float64)
    if isinstance(want, Projections):
        return np.nan, want.relative_error(got)
    want = np.asarray(want, dtype=np.float64)
    if got.shape != want.shape:
        return np.inf, np.inf
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return np.inf, np.inf
    difference = (got - want)[finite]
    if not difference.size:
        return 0.0, 0.0
    return float(np.abs(difference).max()), float(np.linalg.norm(difference) / (np.linalg.norm(want[finite]) + 1e-12))
