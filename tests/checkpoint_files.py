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
    large: bool = False,
) -> dict[str, Tensor]:
    """A fairseq HuBERT's ``model``, with the real names; only the sizes of what the format leaves free are small.

    The published file has ``inner=3072, convolutions=512, positions=128``. The ``large`` layout has a norm in each
    convolution.
    """
    shapes = {"mask_emb": (width,), "label_embs_concat": (20, final)}
    for i, kernel in enumerate(KERNELS):
        shapes[f"feature_extractor.conv_layers.{i}.0.weight"] = (convolutions, convolutions if i else 1, kernel)
        shapes |= _affine(f"feature_extractor.conv_layers.{i}.2.1", convolutions) if large else {}
    shapes |= {} if large else _affine("feature_extractor.conv_layers.0.2", convolutions)
    shapes |= _affine("layer_norm", convolutions)
    shapes |= _affine("post_extract_proj", width, convolutions) | _affine("encoder.layer_norm", width)
    shapes |= {"encoder.pos_conv.0.bias": (width,), "encoder.pos_conv.0.weight_g": (1, 1, positions)}
    shapes["encoder.pos_conv.0.weight_v"] = (width, width // 16, positions)
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for letter in ("k", "v", "q", "out"):
            shapes |= _affine(f"{layer}.self_attn.{letter}_proj", width, width)
        shapes |= _affine(f"{layer}.self_attn_layer_norm", width) | _affine(f"{layer}.final_layer_norm", width)
        shapes |= _affine(f"{layer}.fc1", inner, width) | _affine(f"{layer}.fc2", width, inner)
    return _random(shapes | _affine("final_proj", final, width), seed)


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


def hubertsoft_weights(
    seed: int = 0,
    layers: int = 12,
    width: int = 64,
    inner: int = 64,
    convolutions: int = 16,
    positions: int = 16,
    final: int = 256,
) -> dict[str, Tensor]:
    """HuBERT-Soft's state dict; the published one has ``width=768, inner=3072, convolutions=512, positions=128``."""
    shapes = {"masked_spec_embed": (width,), "label_embedding.weight": (20, final)}
    for i, kernel in enumerate(KERNELS):
        shapes[f"feature_extractor.conv{i}.weight"] = (convolutions, convolutions if i else 1, kernel)
    shapes |= _affine("feature_extractor.norm0", convolutions) | _affine("feature_projection.norm", convolutions)
    shapes |= _affine("feature_projection.projection", width, convolutions) | _affine("norm", width)
    shapes |= {"positional_embedding.conv.weight_g": (1, 1, positions), "positional_embedding.conv.bias": (width,)}
    shapes["positional_embedding.conv.weight_v"] = (width, width // 16, positions)
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        shapes |= {f"{layer}.self_attn.in_proj_weight": (3 * width, width)}
        shapes |= {f"{layer}.self_attn.in_proj_bias": (3 * width,)}
        shapes |= _affine(f"{layer}.self_attn.out_proj", width, width)
        shapes |= _affine(f"{layer}.norm1", width) | _affine(f"{layer}.norm2", width)
        shapes |= _affine(f"{layer}.linear1", inner, width) | _affine(f"{layer}.linear2", width, inner)
    return _random(shapes | _affine("proj", final, width), seed)


def wavlm_checkpoint(seed: int = 0, buckets: int = 32, max_distance: int = 40, **sizes: int) -> dict:
    """A checkpoint of Microsoft's WavLM; ``sizes`` are those of ``contentvec_weights``, the published one's are larger
    (320 buckets, distances up to 800)."""
    weights = contentvec_weights(seed, **sizes)
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(("label", "final"))}
    width = len(weights["mask_emb"])
    layers = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.layers.")}
    shapes = {"encoder.layers.0.self_attn.relative_attention_bias.weight": (buckets, width // 64)}
    for i in layers:
        shapes |= _affine(f"encoder.layers.{i}.self_attn.grep_linear", 8, 64)
        shapes[f"encoder.layers.{i}.self_attn.grep_a"] = (1, width // 64, 1, 1)
    settings = {
        "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
        "layer_norm_first": False,
        "max_distance": max_distance,
        "normalize": False,
        "num_buckets": buckets,
    }
    return {"cfg": settings, "model": weights | _random(shapes, seed + 1)}


def dphubert_checkpoint(
    seed: int = 0,
    width: int = 768,
    heads: tuple[int, ...] = (1, 2),
    inner: tuple[int, ...] = (24, 32),
    convolutions: tuple[int, ...] = (12, 14, 16, 14, 12, 10, 8),
    remaining: tuple[list[int], ...] | None = None,
    positions: int = 16,
    buckets: int = 32,
) -> dict:
    """A pruned network as DPHuBERT saves it, of the WavLM flavour where ``remaining`` heads are named. A 0 in ``heads``
    or ``inner`` is a sublayer that was pruned away. The published one has 12 layers."""
    shapes = {"feature_extractor.dummy_weight": (convolutions[-1],)}
    for i, kernel in enumerate(KERNELS):
        inputs = convolutions[i - 1] if i else 1
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (convolutions[i], inputs, kernel)
    shapes |= _affine("feature_extractor.conv_layers.0.layer_norm", convolutions[0])
    shapes |= _affine("encoder.feature_projection.layer_norm", convolutions[-1])
    shapes |= _affine("encoder.feature_projection.projection", width, convolutions[-1])
    shapes |= {"encoder.transformer.pos_conv_embed.conv.weight_g": (1, 1, positions)}
    shapes |= {"encoder.transformer.pos_conv_embed.conv.weight_v": (width, width // 16, positions)}
    shapes |= {"encoder.transformer.pos_conv_embed.conv.bias": (width,)}
    shapes |= _affine("encoder.transformer.layer_norm", width)
    for i, (count, middle) in enumerate(zip(heads, inner, strict=True)):
        layer = f"encoder.transformer.layers.{i}"
        shapes |= _affine(f"{layer}.layer_norm", width) | _affine(f"{layer}.final_layer_norm", width)
        if count:
            for letter in "kvq":
                shapes |= _affine(f"{layer}.attention.{letter}_proj", 64 * count, width)
            shapes |= _affine(f"{layer}.attention.out_proj", width, 64 * count)
        if count and remaining:
            shapes |= {f"{layer}.attention.gru_rel_pos_const": (1, width // 64, 1, 1)}
            shapes |= _affine(f"{layer}.attention.gru_rel_pos_linear", 8, 64)
            shapes |= {} if i else {f"{layer}.attention.rel_attn_embed.weight": (buckets, width // 64)}
        if middle:
            shapes |= _affine(f"{layer}.feed_forward.intermediate_dense", middle, width)
            shapes |= _affine(f"{layer}.feed_forward.output_dense", width, middle)
    settings = {"extractor_mode": "group_norm", "encoder_layer_norm_first": False, "normalize_waveform": False}
    if remaining:
        settings |= {"encoder_remaining_heads": list(remaining), "encoder_max_distance": 40}
    return {"state_dict": _random(shapes, seed), "config": settings}


def whisper_checkpoint(seed: int = 0, width: int = 64, layers: int = 1, bands: int = 80, inner: int = 64) -> dict:
    """A Whisper checkpoint with a decoder of one tensor. The real ones have ``inner=4 * width``."""
    shapes = {"encoder.positional_embedding": (1500, width), "decoder.ln.weight": (width,)}
    for i, inputs in ((1, bands), (2, width)):
        shapes |= {f"encoder.conv{i}.weight": (width, inputs, 3), f"encoder.conv{i}.bias": (width,)}
    for i in range(layers):
        block = f"encoder.blocks.{i}"
        for name in ("query", "key", "value", "out"):
            shapes |= _affine(f"{block}.attn.{name}", width, width)
        del shapes[f"{block}.attn.key.bias"]
        shapes |= _affine(f"{block}.attn_ln", width) | _affine(f"{block}.mlp_ln", width)
        shapes |= _affine(f"{block}.mlp.0", inner, width) | _affine(f"{block}.mlp.2", width, inner)
    dims = {"n_mels": bands, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": width // 64}
    dims |= {"n_audio_layer": layers, "n_vocab": 51865}
    return {"dims": dims, "model_state_dict": _random(shapes | _affine("encoder.ln_post", width), seed)}


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: _values(name, shape, generator) for name, shape in shapes.items()}


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
