"""The settings that a sweep tries for a model, as far as its files allow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference.model_files import find_diffusion, find_timbre
from modules.console import UserError, option

RATIO = 0.5  # of the timbre, at which the numbers of lists are compared
RATIOS = (0.5, 1.0)
LISTS = (1, 8, None)  # None: as many as needed
DEPTHS = (20, 50, 100, 200)
SPEEDUPS = (5, 10, 25)
DEPTH = 100  # at which the sampler's steps are compared


@dataclass(frozen=True)
class Variant:
    """A change of the settings, by the names of inference_main.py's parsed flags."""

    name: str
    settings: dict[str, object] = field(default_factory=dict)


def variants(model: Path, device: str) -> Iterator[Variant]:
    """Yield the variants for a generator: its own settings first, then those whose files lie beside it."""
    yield Variant("as given")
    for precision in ("fp32", "bf16", *(("fp16",) if device.startswith("cuda") else ())):
        yield Variant(option("precision", precision), {"precision": precision})
    centres, index = (find_timbre("", retrieval, model) for retrieval in (False, True))
    if centres.is_file():
        for ratio in RATIOS:
            yield Variant(option("cluster_infer_ratio", ratio), {"cluster_infer_ratio": ratio})
    if index.is_file():
        base = {"feature_retrieval": True, "cluster_infer_ratio": RATIO}
        for lists in LISTS:
            name = f"{option('feature_retrieval', True)} {option('cluster_infer_ratio', RATIO)}"
            yield Variant(f"{name} {option('nprobe', 'auto' if lists is None else lists)}", base | {"nprobe": lists})
    try:
        find_diffusion(None, None, model)
    except UserError:
        return
    shallow = option("shallow_diffusion", True)
    for depth in DEPTHS:
        yield Variant(f"{shallow} {option('k_step', depth)}", {"shallow_diffusion": True, "k_step": depth})
    for speedup in SPEEDUPS:
        settings = {"shallow_diffusion": True, "k_step": DEPTH, "diffusion_speedup": speedup}
        yield Variant(f"{shallow} {option('k_step', DEPTH)} {option('diffusion_speedup', speedup)}", settings)
