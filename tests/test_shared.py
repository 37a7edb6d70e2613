"""Objects that are shared while they are used."""

import gc
import weakref

import torch

from modules.shared import shared


def test_an_object_is_built_once_while_it_is_used_and_freed_with_its_last_user():
    built = []

    @shared
    def network(size, device):
        built.append((size, device))
        return torch.nn.Linear(size, 1)

    first, second, other = network(3, "cpu"), network(3, "cpu"), network(4, "cpu")
    assert first is second and first is not other
    assert built == [(3, "cpu"), (4, "cpu")]
    alive = weakref.ref(first)
    del first, second
    gc.collect()
    assert alive() is None
    network(3, "cpu")
    assert built == [(3, "cpu"), (4, "cpu"), (3, "cpu")]
