"""Every number that the original program computed and we were given, and the names and shapes of what it saves.

Set ``SVC_PARITY`` to a folder with the full arrays to compare element by element.
"""

from __future__ import annotations

import pytest
import torch

from tests import parity
from tests.parity import cluster, diffusion, encoders, f0, inference, networks, signal, vocoder

MODULES = (networks, signal, f0, encoders, inference, diffusion, vocoder, cluster)
ADAPTERS = {key: adapter for module in MODULES for key, adapter in module.ADAPTERS.items()}
STATE_DICTS = {key: shapes for module in MODULES for key, shapes in getattr(module, "STATE_DICTS", {}).items()}


@pytest.mark.parametrize("name", parity.names())
def test_numbers_are_the_originals(name):
    adapter = parity.pick(ADAPTERS, name)
    assert adapter, f"no adapter knows the fixture {name}"
    meta, ins, wanted = parity.load(name)
    meta["constructor"] = arguments = parity.Arguments(meta["constructor"])
    with parity.zeroed_draws(meta), torch.set_grad_enabled(name.startswith("Z_")):
        got = adapter(ins, meta)
    assert not parity.failures(got, wanted, meta)
    assert not arguments.unread, "the adapter ignores these constructor arguments"


def saves(name: str) -> bool:
    """Whether the fixture is of a network that we write; encoders' files (H_) are only read, by their own names."""
    return bool(parity.load_meta(name).get("state_dict")) and not name.startswith("H_")


@pytest.mark.parametrize("name", list(filter(saves, parity.names())))
def test_saved_names_shapes_and_their_order_are_the_originals(name):
    shapes = parity.pick(STATE_DICTS, name)
    assert shapes, f"nobody says what is saved for the fixture {name}"
    meta = parity.load_meta(name)
    got, wanted = shapes(meta), meta["state_dict"]
    assert got == wanted
    assert list(got) == list(wanted)
