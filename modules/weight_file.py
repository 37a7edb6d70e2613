"""Weight files of other programs, under ``pretrain/``: found, read safely, and recognised by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from modules.console import UserError
from modules.safe_pickle import load_torch_inert

# What a file is, by one tensor that only its kind has; the first match counts (WavLM has HuBERT's names as well).
FAMILIES = {
    "Whisper": "encoder.blocks.0.attn.query.weight",
    "transformers Whisper": "model.encoder.layers.0.self_attn.k_proj.weight",
    "HuBERT-Soft": "positional_embedding.conv.weight_v",
    "DPHuBERT": "feature_extractor.dummy_weight",
    "WavLM": "encoder.layers.0.self_attn.grep_a",
    "fairseq HuBERT": "encoder.layers.0.self_attn.k_proj.weight",
    "transformers HuBERT": "encoder.layers.0.attention.k_proj.weight",
    "RMVPE": "unet.encoder.bn.weight",
    "FCPE": "cent_table",
    "SoVITS generator": "enc_p.proj.weight",
    "SoVITS discriminator": "discriminators.0.convs.0.bias",
    "shallow diffusion": "unit_embed.weight",
    "NSF-HiFiGAN": "m_source.l_linear.weight",
}
_PREFIXES = ("", "module.", "hubert.", "w2v_model.", "w2v_encoder.w2v_model.")

# What a file is, by its first bytes.
FORMATS = {
    b"PK\x03\x04": "PyTorch checkpoint",
    b"\x80": "PyTorch checkpoint",
    b"\x08": "ONNX graph",
    b"<": "web page, which a failed download leaves",
    b"version https://git-lfs": "pointer of Git LFS, not the file itself",
}

NAMED_IN_ERRORS = 3

Value = TypeVar("Value")


def find_weight_file(name: str, folder: str | Path, user: str, what: str) -> Path:
    """The path of the weight file ``name`` that ``user`` ("the speech encoder 'vec768l12'") needs, ``what`` in words.

    Raises UserError naming the file, the folder and where it is described.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"{user} needs '{name}' in {path.parent}/: {what}; pretrain/README.md describes it")
    return path


def _a(noun: str) -> str:
    """The noun with its article; capitals are read letter by letter."""
    vowels = "AEFHILMNORSX" if noun[:2].isupper() else "AEIOUaeiou"
    return f"{'an' if noun[0] in vowels else 'a'} {noun}"


def refuse_other_formats(path: str | Path, wanted: str) -> None:
    """UserError when the first bytes of a file are those of another format than ``wanted``."""
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    for beginning, kind in FORMATS.items():
        if start.startswith(beginning) and kind != wanted:
            raise UserError(f"{path} is no {wanted}: it looks like {_a(kind)}; pretrain/README.md says what goes there")


def read_weight_file(path: str | Path, family: str) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU, as stored (many such files are half precision).

    Raises UserError when the file is unreadable or refused (see ``safe_pickle``), or is of another family than asked.
    """
    return _of_family(_read(path), path, family)


@dataclass(frozen=True)
class Settings:
    """What a checkpoint says of its network in words and numbers."""

    values: dict[str, Any]
    path: str | Path

    def get(self, name: str, default: Value) -> Value:
        """The value of ``name``. Raises UserError when it is not of the default's type."""
        value = self.values.get(name, default)
        if type(value) is not type(default):
            raise UserError(f"{self.path} is damaged: its setting {name} is a {type(value).__name__}")
        return value


def read_weights_and_settings(path: str | Path, family: str, name: str) -> tuple[dict[str, Tensor], Settings]:
    """The tensors as ``read_weight_file`` gives them, and what the checkpoint keeps under ``name`` beside them.

    Raises UserError as that does, and when there is nothing of that name.
    """
    checkpoint = _read(path)
    weights = _of_family(checkpoint, path, family)
    settings = checkpoint.get(name)
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds the weights of {_a(family)} without its settings ('{name}'); get the whole file")
    return weights, Settings(settings, path)


def recognise(weights: dict[str, Tensor]) -> str | None:
    """Which of the known families a state dict belongs to, or None."""
    for family, marker in FAMILIES.items():
        if any(prefix + marker in weights for prefix in _PREFIXES):
            return family
    return None


def _read(path: str | Path) -> object:
    if Path(path).is_file():
        refuse_other_formats(path, "PyTorch checkpoint")
    return load_torch_inert(path)


def _of_family(checkpoint: object, path: str | Path, family: str) -> dict[str, Tensor]:
    weights = _largest_state_dict(checkpoint)
    found = recognise(weights)
    if found != family:
        looks = f"looks like {_a(found)} checkpoint" if found else "holds none of the tensors that such a file has"
        raise UserError(f"{path} is not {_a(family)} checkpoint: it {looks}; pretrain/README.md says what goes there")
    return weights


def _largest_state_dict(checkpoint: object) -> dict[str, Tensor]:
    """Programs keep their weights at the top, or under ``model``, ``state_dict``, ``generator`` and the like."""
    dicts = [checkpoint, *checkpoint.values()] if isinstance(checkpoint, dict) else []
    tensors = [
        {k: v for k, v in one.items() if isinstance(k, str) and isinstance(v, Tensor)}
        for one in dicts
        if isinstance(one, dict)
    ]
    return max(tensors, key=len, default={})


def assign(module: nn.Module, weights: Mapping[str, Tensor], where: str | Path, what: str) -> None:
    """Give a module made on the meta device the file's values, in the module's precision, apart from the mapped file.

    Raises UserError when the names or shapes are not the module's: the file ``where`` is not a whole ``what``.
    """
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not expected" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{where} does not hold a whole {what}: {in_short(wrong, '; ')}")
    values = {name: weights[name].to(own[name].dtype, copy=True) for name in own}
    module.load_state_dict(values, assign=True)


def in_short(items: list[str], separator: str) -> str:
    """The first few items and how many more there are, for a sentence."""
    more = len(items) - NAMED_IN_ERRORS
    return separator.join(items[:NAMED_IN_ERRORS]) + (f" (and {more} more)" if more > 0 else "")
