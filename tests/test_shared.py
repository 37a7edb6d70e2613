"""Objects that are shared while they are used."""

import gc
import weakref
from pathlib import Path

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


def test_a_replaced_file_and_one_of_another_folder_give_other_objects(tmp_path, monkeypatch):
    @shared
    def network(path):
        return torch.nn.Linear(len(path.read_bytes()), 1)

    held = []
    for folder, content in (("a", b"1"), ("b", b"22"), ("b", b"333")):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        Path("weights.pt").write_bytes(content)
        held.append(network(Path("weights.pt")))
        assert network(Path("weights.pt")) is held[-1]
    assert [one.in_features for one in held] == [1, 2, 3]
