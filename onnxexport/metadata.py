"""The JSON file that MoeVoiceStudio reads for each model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion.unit2mel import LOUDEST, QUIETEST
from modules.atomic_file import output_path
from modules.config import Config, DiffusionConfig
from modules.console import UserError, get_logger
from modules.untrusted.json_file import read_json
from onnxexport.vocoder import vocoder_graph_name
from vencoder import encoder_key, graph_file

log = get_logger("onnx")

HOST_NOISE_CHANNELS = 192  # fixed in MoeVoiceStudio
CENTRES = "KMeans.npy"


def synthesizer_metadata(name: str, config: Config, path: str | Path, beside: Mapping[str, Any]) -> dict[str, Any]:
    """Build the keys for a synthesizer in the folder ``name``; ``path`` is its config's.

    ``beside`` are the keys for its timbre and its diffusion model.
    """
    model = config.model
    values = {
        "Folder": name,
        "Name": name,
        "Type": "SoVits",
        "Rate": config.data.sampling_rate,
        "Hop": config.data.hop_length,
        "Hubert": encoder_graph_name(model.speech_encoder, model.ssl_dim, path),
        "SoVits4": True,
        "SoVits3": False,
        "CharaMix": len(config.spk) > 1,
        "Volume": model.vol_embedding,
        "HiddenSize": model.ssl_dim,
        "Characters": list(config.spk),
        **beside,
    }
    if flaw := noise_flaw(config):
        values["Note"] = flaw
    return values


def diffusion_metadata(name: str, config: DiffusionConfig, n_mels: int, path: str | Path) -> dict[str, Any]:
    """Build the keys for a diffusion model in the folder ``name``; ``path`` is its YAML's."""
    data = config.data
    return {
        "Folder": name,
        "Name": name,
        "Type": "DiffSvc",
        "Rate": data.sampling_rate,
        "Hop": data.block_size,
        "MelBins": n_mels,
        "Hubert": encoder_graph_name(data.encoder, data.encoder_out_channels, path),
        "Hifigan": vocoder_graph_name(Path(config.vocoder.ckpt)),
        "Diffusion": True,
        "CharaMix": config.model.n_spk > 1 and len(config.spk) > 1,
        "Volume": True,
        "HiddenSize": data.encoder_out_channels,
        "Characters": list(config.spk),
        "Pndm": config.infer.speedup,
        "SpecMax": LOUDEST,
        "SpecMin": QUIETEST,
    }


def diffusion_json(metadata: Path) -> Path:
    """Return the path of the JSON file of the diffusion model that refines the synthesizer of the file ``metadata``."""
    return metadata.with_name(f"{metadata.stem}_diffusion.json")


def shallow_diffusion(metadata: Path) -> dict[str, str]:
    """Return the synthesizer's key for its diffusion model, whose JSON file lies beside its own; empty without one."""
    path = diffusion_json(metadata)
    return {"ShallowDiffusion": path.stem} if path.is_file() else {}


def timbre_metadata(folder: str | Path, speakers: int) -> dict[str, Any]:
    """Return the JSON's keys for the files in ``folder`` of a model with so many ``speakers``.

    Centres of another number of speakers are left out with a warning, as is a damaged file.
    """
    if index_file(folder, 0).is_file():
        return {"Cluster": "Index"}
    path = Path(folder) / CENTRES
    if not path.is_file():
        return {"Cluster": ""}
    try:
        length, rest = divmod(len(np.load(path, mmap_mode="r")), speakers)
    except (OSError, ValueError, TypeError, ZeroDivisionError):
        length, rest = 0, 1
    if rest or not length:
        log.warning("%s is left out: it holds no table of centres of %d speakers", path, speakers)
        return {"Cluster": ""}
    return {"Cluster": "KMeans", "KMeansLength": length}


def index_file(folder: str | Path, place: int) -> Path:
    """Return the path of the index of the speaker at a place."""
    return Path(folder) / f"Index-{place}.index"


def index_files(folder: str | Path) -> list[Path]:
    """Return the paths of the indexes in a folder, of any place."""
    return [path for path in Path(folder).glob("Index-*.index") if path.stem.removeprefix("Index-").isdigit()]


def noise_flaw(config: Config) -> str | None:
    """Return why the host's noise does not fit the model, as a sentence; None if it does."""
    channels = config.model.inter_channels
    if channels == HOST_NOISE_CHANNELS:
        return None
    return (
        f"MoeVoiceStudio cannot run this model: its noise has {HOST_NOISE_CHANNELS} channels, and the model's "
        f"(inter_channels) {channels}"
    )


def encoder_flaw(key: str, size: int, path: str | Path) -> str | None:
    """Return why the host has no graph of the speech encoder ``key``, as a sentence; None if it has one.

    ``size`` is the number of features that the model takes, ``path`` its config's.
    """
    try:
        graph = graph_file(encoder_key(key, size, path))
    except UserError as error:
        return f"{error}. The JSON's Hubert has to be set by hand"
    return None if graph else f"MoeVoiceStudio cannot run this model: the speech encoder '{key}' has no graph"


def encoder_graph_name(key: str, size: int, path: str | Path) -> str:
    """Return the name, without .onnx, of the graph that the export of the speech encoder ``key`` writes.

    It is the key if there is an ``encoder_flaw``.
    """
    return key if encoder_flaw(key, size, path) else graph_file(encoder_key(key, size, path)).stem


def amend_metadata(path: str | Path, values: Mapping[str, Any]) -> None:
    """Set keys in a model's JSON file, if there is one; log it otherwise. Raises UserError if it is damaged.

    All keys for the timbre are replaced if ``values`` has one.
    """
    path = Path(path)
    if not path.is_file():
        log.info("export the synthesizer next; its JSON file, %s, will name this", path)
        return
    try:
        before = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); export the synthesizer again") from None
    if not isinstance(before, dict):
        raise UserError(f"{path} describes no model; export the synthesizer again")
    if "Cluster" in values:
        before.pop("KMeansLength", None)
    with output_path(path) as temporary:
        temporary.write_text(json_text(before | values), encoding="utf-8")


def json_text(values: Mapping[str, Any]) -> str:
    """Format a file's text."""
    return json.dumps(values, indent=4)
