"""FCPE: the fastest of the networks."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.audio.spectrogram import VocoderMel
from modules.console import UserError
from modules.f0.fcpe_network import FcpeNetwork, FcpeSizes
from modules.f0.salience import SaliencePredictor, log
from modules.layers.weight_norm import fold_normed_weights
from modules.shared import shared
from modules.weights.weight_file import assign, read_weight_file, read_weights_and_settings

BUNDLED = "torchfcpe", "assets/fcpe_c_v001.pt"  # the package and its weight file; its network has no attention
# From the names of that file to those of the published format; a tensor without a new name is unused.
NAMES = (
    (r"input_stack\.(.*)", r"stack.\1"),
    (r"net\.encoder_layers\.(.*)", r"decoder._layers.\1"),
    (r"output_proj\.(.*)", r"dense_out.\1"),
    (r"gaussian_blurred_cent_mask", None),
)


class Fcpe(SaliencePredictor):
    """The network of ``pretrain/fcpe.pt`` or, without that file, of the package torchfcpe; loaded once per process."""

    edges_count_twice = True

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.weight = self.weight or bundled_weight()
        self.loaded = load_network(self.weight, torch.device(self.device))
        self.network, self.mel = self.loaded.network, self.loaded.mel
        self.network_rate, self.window = self.mel.sampling_rate, self.mel.win_length

    def log_mel(self, wave: Tensor) -> Tensor:
        return log_mel(wave, self.mel)

    @property
    def cents(self) -> Tensor:
        return self.network.cent_table


def bundled_weight() -> Path:
    """Return the weight file of the package torchfcpe without importing it. Raises UserError if it is missing."""
    package, name = BUNDLED
    found = importlib.util.find_spec(package)
    path = Path(found.submodule_search_locations[0]) / name if found else None
    if path is None or not path.is_file():
        raise UserError(
            "the F0 predictor 'fcpe' needs pretrain/fcpe.pt, which 'python download_pretrain.py --f0 fcpe' fetches, or "
            f"the model in {package} 0.0.4: pip install {package}==0.0.4"
        )
    return path


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network, ready for inference, and its input spectrogram."""

    network: FcpeNetwork
    mel: VocoderMel


@shared
def load_network(path: Path, device: torch.device) -> LoadedNetwork:
    """Load a weight file.

    Reads both formats, whatever the file's name. Raises UserError when the file is truncated, unsafe, of another model,
    incomplete, or its settings do not fit its tensors.
    """
    from_torchfcpe = any(name.startswith("input_stack.") for name in read_weight_file(path, "FCPE"))
    weights, settings = read_weights_and_settings(path, "FCPE", "config_dict" if from_torchfcpe else "config")
    if from_torchfcpe:
        weights = _renamed(weights)
    sizes = _sizes(weights, path)
    with torch.device("meta"):
        network = FcpeNetwork(sizes)
    assign(network, weights, path, "FCPE")
    fold_normed_weights(network)
    mel = _read_mel_settings(settings.get("mel", {}))
    _check_mel(mel, sizes.mels, path)
    bundled = path.match("/".join(BUNDLED))
    log.info("F0 predictor fcpe: %s", f"the model that comes with {BUNDLED[0]}" if bundled else path)
    return LoadedNetwork(network.eval().requires_grad_(False).to(device), mel)


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        pattern, replacement = next((rule for rule in NAMES if re.fullmatch(rule[0], name)), (name, name))
        if replacement is not None:
            renamed[re.sub(pattern, replacement, name)] = tensor
    return renamed


def _sizes(weights: Mapping[str, Tensor], path: Path) -> FcpeSizes:
    """Read the sizes from the tensors' shapes; ``assign`` checks the other tensors."""
    try:
        channels, mels, _ = weights["stack.0.weight"].shape
        return FcpeSizes(
            mels=mels,
            channels=channels,
            layers=sum(name.endswith("conformer.net.0.weight") for name in weights),
            bins=len(weights["dense_out.bias"]),
            attention=any(".attn." in name for name in weights),
        )
    except (KeyError, ValueError):
        raise UserError(f"{path} does not hold a whole FCPE; pretrain/README.md says what goes there") from None


def _read_mel_settings(settings: Mapping[str, Any]) -> VocoderMel:
    return VocoderMel(
        sampling_rate=settings.get("sampling_rate", settings.get("sr", 16000)),
        n_mels=settings.get("num_mels", 128),
        n_fft=settings.get("n_fft", 1024),
        win_length=settings.get("win_size", 1024),
        hop_length=settings.get("hop_size", 160),
        fmin=settings.get("fmin", 0),
        fmax=settings.get("fmax", 8000),
    )


def _check_mel(mel: VocoderMel, bands: int, path: Path) -> None:
    """Raise UserError if the spectrogram's settings are impossible or do not have the tensors' number of ``bands``."""
    counts = (mel.sampling_rate, mel.hop_length, mel.win_length, mel.n_fft)
    numbers = all(type(n) is int and n > 0 for n in counts)
    numbers = numbers and all(type(edge) in (int, float) for edge in (mel.fmin, mel.fmax))
    if not numbers or mel.n_mels != bands or not mel.hop_length <= mel.win_length <= mel.n_fft:
        raise UserError(f"{path} is damaged: its tensors take {bands} bands, its settings describe {mel}")


def log_mel(wave: Tensor, mel: VocoderMel) -> Tensor:
    """Map ``(B, L)`` to ``(B, n_mels, L // hop + 1)``; the last frame is repeated, as in the networks' training."""
    frames = mel(wave)
    return torch.cat((frames, frames[..., -1:]), dim=-1)
