"""The JSON file that MoeVoiceStudio reads beside a model's folder."""

from __future__ import annotations

import json
from typing import Any

from modules.config import Config

LAYER_12_SIZE = 768  # the host's rule for the content encoder: this size means layer 12, any other size layer 9


def metadata(name: str, config: Config) -> dict[str, Any]:
    """Build the published keys for a model in the folder ``name``."""
    model = config.model
    layer = 12 if model.gin_channels == LAYER_12_SIZE else 9
    return {
        "Folder": name,
        "Name": name,
        "Type": "SoVits",
        "Rate": config.data.sampling_rate,
        "Hop": config.data.hop_length,
        "Hubert": f"vec-{model.gin_channels}-layer-{layer}",
        "SoVits4": True,
        "SoVits3": False,
        "CharaMix": len(config.spk) > 1,
        "Volume": model.vol_embedding,
        "HiddenSize": model.gin_channels,
        "Characters": list(config.spk),
        "Cluster": "",
    }


def metadata_text(name: str, config: Config) -> str:
    """Format the file's text."""
    return json.dumps(metadata(name, config), indent=4)
