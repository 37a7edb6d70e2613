"""Weight files in the formats of other programs, with random weights: what a user would have under pretrain/.

Every norm and bias is random too, so that a tensor in the wrong place shows.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import sys
import types
import typing
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LAYOUTS = ("cfg_dict", "args", "omegaconf", "legacy")
KERNELS = (10, 3, 3, 3, 3, 2, 2)


def contentvec_weights(
    seed: int = 0,
    layers: int = 12,
    width: int = 768,
    inner: int = 64,
    convolutions: int = 32,
    positions: int = 16,
    final: int = 256,
) -> dict[str, Tensor]:
    """A fairseq HuBERT's ``model``, with the real names; only the sizes of what the format leaves free are small.

    The published file has ``inner=3072, convolutions=512, positions=128``.
    """
    shapes = {"mask_emb": (width,), "label_embs_concat": (20, final)}
    for i, kernel in enumerate(KERNELS):
        shapes[f"feature_extractor.conv_layers.{i}.0.weight"] = (convolutions, convolutions if i else 1, kernel)
    shapes |= _affine("feature_extractor.conv_layers.0.2", convolutions) | _affine("layer_norm", convolutions)
    shapes |= _affine("post_extract_proj", width, convolutions) | _affine("encoder.layer_norm", width)
    shapes |= {"encoder.pos_conv.0.bias": (width,), "encoder.pos_conv.0.weight_g": (1, 1, positions)}
    shapes["encoder.pos_conv.0.weight_v"] = (width, width // 16, positions)
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for letter in ("k", "v", "q", "out"):
            shapes |= _affine(f"{layer}.self_attn.{letter}_proj", width, width)
        shapes |= _affine(f"{layer}.self_attn_layer_norm", width) | _affine(f"{layer}.final_layer_norm", width)
        shapes |= _affine(f"{layer}.fc1", inner, width) | _affine(f"{layer}.fc2", width, inner)
    shapes |= _affine("final_proj", final, width)
    generator = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, generator) for name, shape in shapes.items()}


def write_contentvec_checkpoint(path: str | Path, seed: int = 0, layout: str = "cfg_dict", **sizes: int) -> Path:
    """Write ``contentvec_weights(seed, **sizes)`` as fairseq does; returns the path."""
    return write_fairseq_checkpoint(path, contentvec_weights(seed, **sizes), layout)


def write_fairseq_checkpoint(path: str | Path, weights: dict[str, Tensor], layout: str = "cfg_dict") -> Path:
    """Write a fairseq training checkpoint in one of its LAYOUTS, with the objects of foreign classes that it holds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _foreign_classes() as foreign:
        dictionary = foreign["Dictionary"]()
        dictionary.symbols, dictionary.indices = ["<s>", "0"], {"<s>": 0, "0": 1}
        settings = {"_name": "hubert", "layer_norm_first": False, "mode": foreign["Mode"].DEFAULT}
        checkpoint = {
            "args": argparse.Namespace(arch="hubert") if layout == "args" else None,
            "cfg": None if layout == "args" else {"model": settings, "common": {"seed": 1, "user_dir": Path("x")}},
            "model": OrderedDict(weights),
            "criterion": None,
            "optimizer_history": [{"num_updates": 500, "best_loss": np.float64(2.5), "criterion_name": "Hubert"}],
            "task_state": {"dictionaries": [dictionary]},
            "extra_state": {"epoch": 3, "metrics": foreign["Meters"]({"train": 1.0}), "val_loss": np.float32(2)},
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        }
        if layout == "omegaconf":
            checkpoint["cfg"] = foreign["DictConfig"](checkpoint["cfg"], foreign)
        torch.save(checkpoint, path, _use_new_zipfile_serialization=layout != "legacy")
    return path


def _affine(name: str, width: int, inputs: int | None = None) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,) if inputs is None else (width, inputs), f"{name}.bias": (width,)}


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.3 * noise
    if len(shape) == 1 or name.endswith("weight_g"):
        return 1 + 0.3 * noise
    return noise / noise[0].numel() ** 0.5


@contextlib.contextmanager
def _foreign_classes() -> Iterator[dict[str, type]]:
    """Classes under the names that fairseq's files hold, importable (as pickling demands) only within the block."""

    class Mode(enum.Enum):
        DEFAULT = "default"

    class Dictionary:
        pass

    class Meters(OrderedDict):
        pass

    class ContainerMetadata:
        def __init__(self):
            self.ref_type, self.object_type, self.element_type = typing.Any, dict, str

    class DictConfig:
        def __init__(self, content: dict, foreign: dict[str, type]):
            self.__dict__["_metadata"] = foreign["ContainerMetadata"]()
            self.__dict__["_content"] = content
            self.__dict__["_parent"] = None

    homes = {
        "fairseq.dataclass.constants": Mode,
        "fairseq.data.dictionary": Dictionary,
        "fairseq.logging.meters": Meters,
        "omegaconf.base": ContainerMetadata,
        "omegaconf.dictconfig": DictConfig,
    }
    foreign = {}
    for module, kind in homes.items():
        kind.__module__, kind.__qualname__ = module, kind.__name__
        foreign[kind.__name__] = kind
    packages = {name.split(".")[0] for name in homes} | {"fairseq.data", "fairseq.dataclass", "fairseq.logging"}
    fakes = {name: types.ModuleType(name) for name in packages | set(homes)}
    for module, kind in homes.items():
        setattr(fakes[module], kind.__name__, kind)
    former = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield foreign
    finally:
        for name, module in former.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
