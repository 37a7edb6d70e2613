"""The JSON file that MoeVoiceStudio reads for each model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.config import Config
from modules.console import UserError, get_logger
from vencoder import encoder_key, graph_file

log = get_logger("onnx")

HOST_NOISE_CHANNELS = 192  # fixed in MoeVoiceStudio


def synthesizer_metadata(name: str, config: Config, path: str | Path) -> dict[str, Any]:
    """Build the keys for a synthesizer in the folder ``name``; ``path`` is its config's."""
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
        "Cluster": "",
    }
    if model.inter_channels != HOST_NOISE_CHANNELS:
        values["Note"] = (
            f"MoeVoiceStudio cannot run this model: its noise has {HOST_NOISE_CHANNELS} channels, and the model's "
            f"(inter_channels) {model.inter_channels}"
        )
        log.warning("%s", values["Note"])
    return values


def encoder_graph_name(key: str, size: int, path: str | Path) -> str:
    """Return the name, without .onnx, of the graph that the export of the speech encoder ``key`` writes.

    Logs a warning if it has none, or other features than ``size``; then the name is the key. ``path`` is the config's.
    """
    try:
        graph = graph_file(encoder_key(key, size, path))
    except UserError as error:
        log.warning("%s. The JSON's Hubert has to be set by hand", error)
        return key
    if graph is None:
        log.warning("the speech encoder '%s' has no graph, so MoeVoiceStudio cannot run this model", key)
    return graph.stem if graph else key


def json_text(values: Mapping[str, Any]) -> str:
    """Format a file's text."""
    return json.dumps(values, indent=4)
