"""Static mixing: a generator whose weights are a weighted sum of several generators' weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from modules.config import load_config
from modules.console import UserError, get_logger, option
from vits.generator_file import read_generator, refuse_to_overwrite, write_generator

log = get_logger("mix")


def mix_models(paths: Sequence[str | Path], weights: Sequence[float], mode: str, target: str | Path) -> list[float]:
    """Write to ``target`` the mix of generators by ``weights`` in percent; returns each model's share.

    All entries besides the network come from the first file. Raises UserError for less than two models, weights that
    are not one per model from 0 to 100, configs whose ``model`` sections differ, and networks whose names or shapes
    differ.
    """
    if len(paths) < 2:
        raise UserError(f"a mix takes two models or more; name them with {option('paths')}")
    if len(weights) != len(paths):
        raise UserError(f"{option('weights')} gives {len(weights)} weights for {len(paths)} models; give one for each")
    fractions = shares(weights, mode)
    refuse_to_overwrite(target, *paths)
    _refuse_other_configs(paths)
    first = read_generator(paths[0])
    model = first.pop("model")
    write_generator(target, mixed(_of_one_shape(model, paths), fractions), **first)
    return fractions


def shares(weights: Sequence[float], mode: str) -> list[float]:
    """Return each model's share of the mix, from weights in percent.

    ``convex``: the softmax of weight / 100, as published. Shares sum to 1 and equal weights give the mean, but weights
    of 100 and 0 give 0.73 and 0.27. ``linear``: weight / 100, with a warning if they do not sum to 100.
    """
    outside = [weight for weight in weights if not 0 <= weight <= 100]
    if outside:
        raise UserError(f"{option('weights')} {outside[0]:g} is not a weight; weights are from 0 to 100")
    if mode == "convex":
        powers = [math.exp(weight / 100) for weight in weights]
        return [power / sum(powers) for power in powers]
    if not any(weights):
        raise UserError(f"{option('weights')} gives every model the weight 0; nothing would be left of them")
    if abs(sum(weights) - 100) > 0.5:
        log.warning("the weights sum to %g and not to 100, so the mix is no mean of the models", sum(weights))
    return [weight / 100 for weight in weights]


def mixed(models: Iterable[dict[str, Tensor]], fractions: Sequence[float]) -> dict[str, Tensor]:
    """Compute the weighted sum of the models' tensors by name, in float32, stored in their highest precision.

    The models are read one after the other, so memory use does not grow with their number.
    """
    total: dict[str, Tensor] = {}
    precision: dict[str, torch.dtype] = {}
    for model, fraction in zip(models, fractions, strict=True):
        for name, tensor in model.items():
            total[name] = total.get(name, 0) + fraction * tensor.float()
            precision[name] = torch.promote_types(precision.get(name, tensor.dtype), tensor.dtype)
    return {name: tensor.to(precision[name]) for name, tensor in total.items()}


def _of_one_shape(first: dict[str, Tensor], paths: Sequence[str | Path]) -> Iterator[dict[str, Tensor]]:
    """Yield the networks of all files. Raises UserError with the first difference of names or shapes."""
    yield first
    wanted = {name: list(tensor.shape) for name, tensor in first.items()}
    for path in paths[1:]:
        model = read_generator(path)["model"]
        found = {name: list(tensor.shape) for name, tensor in model.items()}
        for name in [*wanted, *found]:
            if wanted.get(name) != found.get(name):
                one, other = (shapes.get(name, "absent") for shapes in (wanted, found))
                released = "; compress all of them or none" if name.startswith("enc_q.") else ""
                raise UserError(f"{paths[0]} and {path} do not mix: {name} is {one} and {other}{released}")
        yield model


def _refuse_other_configs(paths: Sequence[str | Path]) -> None:
    """Raise UserError with the first differing key of the ``model`` sections in the models' config.json files."""
    config_paths = dict.fromkeys(Path(path).with_name("config.json") for path in paths)
    configs = {path: load_config(path) for path in config_paths if path.is_file()}
    for path in config_paths:
        if path not in configs:
            log.warning("there is no %s; of that model only names and shapes are compared", path)
    for (path, config), (other_path, other) in pairwise(configs.items()):
        wanted, found = config.model.to_dict(), other.model.to_dict()
        for key in {**wanted, **found}:
            if wanted.get(key) != found.get(key):
                raise UserError(
                    f"{path} and {other_path} do not mix: model.{key} is {wanted.get(key)!r} and {found.get(key)!r}"
                )
        if config.spk != other.spk:
            log.warning("%s and %s name speakers differently; those of the same number are mixed", path, other_path)
