"""Write tests/network_shapes.json: names and shapes of the state dicts of the default synthesizer and discriminator.

The file is a tree of the names' parts; a shape is a list. Consecutive numbers with equal subtrees are one entry,
``"0-3"``. ``order`` is a hash of all names in their order, which optimizer states depend on.

    python -m tests.network_shapes
"""

import hashlib
import json
from pathlib import Path

from torch import nn

from modules.config import load_config
from vits.discriminator import MultiPeriodDiscriminator
from vits.synthesizer import Synthesizer

FILE = Path(__file__).with_name("network_shapes.json")
TEMPLATE = Path(__file__).parents[1] / "configs_template" / "config_template.json"


def describe(network: nn.Module) -> dict:
    """The tree and the order of a network's state dict."""
    state = network.state_dict()
    tree: dict = {}
    for name, tensor in state.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = list(tensor.shape)
    order = hashlib.sha256("\n".join(state).encode()).hexdigest()
    return {"tensors": len(state), "order": order, "tree": merged(tree)}


def merged(node: dict | list) -> dict | list:
    """Merge runs of consecutive numbers with equal subtrees."""
    if isinstance(node, list):
        return node
    runs: list[tuple[str, str, dict | list]] = []  # first name, last name, subtree
    for name, child in ((name, merged(child)) for name, child in node.items()):
        if runs and name.isdigit() and runs[-1][1] == str(int(name) - 1) and runs[-1][2] == child:
            runs[-1] = runs[-1][0], name, child
        else:
            runs.append((name, name, child))
    return {first if first == last else f"{first}-{last}": child for first, last, child in runs}


def describe_default_networks() -> dict:
    config = load_config(TEMPLATE)
    return {
        "synthesizer": describe(Synthesizer(config.model, config.data.filter_length // 2 + 1)),
        "discriminator": describe(MultiPeriodDiscriminator(config.model.use_spectral_norm)),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(describe_default_networks()) + "\n", encoding="utf-8")
