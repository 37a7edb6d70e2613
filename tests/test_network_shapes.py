"""The default networks have the state-dict names and shapes of published checkpoints."""

import json

from tests.network_shapes import FILE, describe, describe_default_networks, merged


def test_names_and_shapes_are_unchanged():
    assert describe_default_networks() == json.loads(FILE.read_text(encoding="utf-8"))


def test_another_shape_name_or_order_changes_the_description():
    from torch import nn

    plain = describe(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    assert plain["tree"] == {"0": {"weight": [3, 2], "bias": [3]}, "1": {"weight": [2, 3], "bias": [2]}}
    assert plain["order"] != describe(nn.ModuleDict({"1": nn.Linear(3, 2), "0": nn.Linear(2, 3)}))["order"]
    assert merged({"0": [3], "1": [3], "3": [3], "x": [3]}) == {"0-1": [3], "3": [3], "x": [3]}
