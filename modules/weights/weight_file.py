"""Weight files of other programs in ``pretrain/``: find them, recognise them by their content, read them safely."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from modules.console import UserError
from modules.training.checkpoint import is_dense
from modules.untrusted.json_file import read_json
from modules.untrusted.safe_pickle import load_torch_inert
from modules.weights.safetensors_file import read_safetensors

# Family -> a tensor that only it has; the first match counts (WavLM has HuBERT's names as well).
FAMILIES = {
    "RVC model": "enc_p.emb_phone.weight",
    "Whisper": "encoder.blocks.0.attn.query.weight",
    "transformers Whisper": "model.encoder.layers.0.self_attn.k_proj.weight",
    "HuBERT-Soft": "positional_embedding.conv.weight_v",
    "DPHuBERT": "feature_extractor.dummy_weight",
    "wav2vec 2.0": "quantizer.vars",
    "transformers wav2vec 2.0": "quantizer.codevectors",
    "non-legacy ContentVec": "encoder.layers.12.self_attn_layer_norm.weight_ln.weight",
    "WavLM": "encoder.layers.0.self_attn.grep_a",
    "transformers WavLM": "encoder.layers.0.attention.gru_rel_pos_const",
    "fairseq HuBERT": "encoder.layers.0.self_attn.k_proj.weight",
    "transformers HuBERT": "encoder.layers.0.attention.k_proj.weight",
    "RMVPE": "unet.encoder.bn.weight",
    "FCPE": "cent_table",
    "SoVITS generator": "enc_p.proj.weight",
    "SoVITS discriminator": "discriminators.0.convs.0.bias",
    "shallow diffusion": "unit_embed.weight",
    "NSF-HiFiGAN": "m_source.l_linear.weight",
}
_PREFIXES = ("", "module.", "hubert.", "wavlm.", "wav2vec2.", "w2v_model.", "w2v_encoder.w2v_model.")
_WAV2VEC2 = ("wav2vec2.", "w2v_model.", "w2v_encoder.w2v_model.")  # prefixes that only wav2vec 2.0 has

CHECKPOINT, SAFETENSORS, GRAPH = "a PyTorch checkpoint", "a safetensors file", "an ONNX graph"
_README = "pretrain/README.md says what goes there"
_UNPACK = "unpack it, and put the file that it holds there"

# First bytes of a file -> its format, and what to do if another format is needed.
FORMATS = {
    b"\x80": (CHECKPOINT, _README),
    b"\x08": (GRAPH, _README),
    b"<": ("a web page", "a failed download leaves one; fetch the file again, with a browser if need be"),
    b"version https://git-lfs": (
        "a pointer of Git LFS", "it does not hold the file, only its name; run 'git lfs pull' or download the file"),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"Rar!": ("a rar archive", _UNPACK),
    b"\x1f\x8b": ("a gzip archive", _UNPACK),
    b"{": ("a JSON file", _README),
}  # fmt: skip
LONGEST_HEADER = 100 << 20  # bytes; of a safetensors file

NAMED_IN_ERRORS = 3

Value = TypeVar("Value")


def find_weight_file(
    name: str, folder: str | Path, user: str, what: str, command: str, others: Sequence[str] = ()
) -> Path:
    """Return the path of the weight file ``name`` in ``folder``, or of the first of ``others`` if it is missing.

    ``user`` ("the speech encoder 'vec768l12'"), ``what``, a description of the file, and ``command``, which fetches it,
    are for the message. Raises UserError, which names the file, the folder and the command, if there is none.
    """
    path = Path(folder) / name
    for there in (path, *(Path(folder) / other for other in others)):
        if there.is_file():
            return there
    raise UserError(
        f"{user} needs '{name}' in {path.parent}/: {what}; '{command}' fetches it, and pretrain/README.md describes it"
    )


def refuse_other_formats(path: str | Path, *wanted: str) -> str | None:
    """Return a file's format, None if unknown. Raises UserError if it is known and not in ``wanted``."""
    kind, cure = _format(path)
    if kind and kind not in wanted:
        raise UserError(f"{path} is not {wanted[0]}: it looks like {kind}; {cure}")
    return kind


def _format(path: str | Path) -> tuple[str | None, str]:
    """Return a file's format, None if unknown, and what to do if another format is needed."""
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return (CHECKPOINT, _README) if _has_pickle(path) else ("a zip archive", _UNPACK)
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < LONGEST_HEADER:
        return SAFETENSORS, _README
    for beginning, found in FORMATS.items():
        if start.lstrip().startswith(beginning):
            return found
    return ("a tar archive", _UNPACK) if tarfile.is_tarfile(path) else (None, _README)


def _has_pickle(path: str | Path) -> bool:
    """Return whether a zip archive is one of torch, or cannot be listed because it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except Exception:  # BadZipFile, UnicodeDecodeError, NotImplementedError or OSError, from damage
        return True


def read_weight_file(path: str | Path, family: str) -> dict[str, Tensor]:
    """Read the tensors of a weight file by name, on the CPU, in the stored precision (often half).

    Raises UserError if the file is unreadable, refused (see ``safe_pickle``), or of another family.
    """
    return _of_families(_read(path), path, family)[1]


def read_weights_of(path: str | Path, *families: str) -> tuple[str, dict[str, Tensor]]:
    """Read as ``read_weight_file`` does, for any of several families; returns the family and the tensors."""
    return _of_families(_read(path), path, *families)


@dataclass(frozen=True)
class Settings:
    """The settings that a checkpoint stores about its network."""

    values: dict[str, Any]
    path: str | Path

    def get(self, name: str, default: Value) -> Value:
        """Return the value of ``name``, or ``default``. Raises UserError if its type is not the default's."""
        value = self.values.get(name, default)
        if type(value) is not type(default):
            raise UserError(f"{self.path} is damaged: its setting {name} is a {type(value).__name__}")
        return value


def read_weights_and_settings(path: str | Path, family: str, name: str) -> tuple[dict[str, Tensor], Settings]:
    """Read as ``read_weight_file`` does; returns the tensors and the settings that the checkpoint stores as ``name``.

    Raises UserError as ``read_weight_file`` does, and if there are no such settings.
    """
    checkpoint = _read(path)
    _, weights = _of_families(checkpoint, path, family)
    settings = checkpoint.get(name)
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds {family} weights without their settings ('{name}'); get the whole file")
    return weights, Settings(settings, path)


def recognise(weights: dict[str, Tensor]) -> str | None:
    """Return the family that a state dict belongs to; None if unknown."""
    for family, marker in FAMILIES.items():
        for prefix in _PREFIXES:
            if prefix + marker in weights:
                return "wav2vec 2.0" if prefix in _WAV2VEC2 and "HuBERT" in family else family
    return None


def _read(path: str | Path) -> object:
    if Path(path).is_file() and refuse_other_formats(path, CHECKPOINT, SAFETENSORS) == SAFETENSORS:
        return read_safetensors(path)
    return load_torch_inert(path)


def _of_families(checkpoint: object, path: str | Path, *families: str) -> tuple[str, dict[str, Tensor]]:
    weights = _largest_state_dict(checkpoint)
    found = recognise(weights)
    if found and found.startswith("transformers") and (named := _type_in_config(path)):
        found = {"hubert": found, "wavlm": found}.get(named, named)
    if found not in families:
        looks = f"looks like {found} weights" if found else "holds none of the tensors that such a file has"
        raise UserError(f"{path} holds no {families[0]} weights: it {looks}; {_README}")
    return found, weights


def _type_in_config(path: str | Path) -> str | None:
    """Return ``model_type`` of transformers' config.json beside a file, because wav2vec 2.0 has HuBERT's tensors."""
    config = Path(path).with_name("config.json")
    try:
        if config.stat().st_size > 1 << 20:
            return None
        content = read_json(config)
    except (OSError, ValueError):
        return None
    named = content.get("model_type") if isinstance(content, dict) else None
    return named if isinstance(named, str) else None


def _largest_state_dict(checkpoint: object) -> dict[str, Tensor]:
    """Return the largest state dict, which is the top level or an entry such as ``model`` or ``state_dict``."""
    dicts = [checkpoint, *checkpoint.values()] if isinstance(checkpoint, dict) else []
    tensors = [
        {k: v for k, v in one.items() if isinstance(k, str) and isinstance(v, Tensor)}
        for one in dicts
        if isinstance(one, dict)
    ]
    return max(tensors, key=len, default={})


def assign(module: nn.Module, weights: Mapping[str, Tensor], where: str | Path, what: str, copy: bool = True) -> None:
    """Fill a module on the meta device with copies of the file's tensors, in the module's precision.

    Without ``copy`` tensors of that precision are not copied, and may be parts of the memory-mapped file.
    Raises UserError, saying that the file ``where`` does not hold a whole ``what``, if names or shapes differ.
    """
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not expected" for name in weights if name not in own]
    wrong += [f"{name} is no dense tensor" for name in own if name in weights and not is_dense(weights[name])]
    wrong += [
        f"{name} is {list(weights[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{where} does not hold a whole {what}: {in_short(wrong, '; ')}")
    values = {name: weights[name].to(own[name].dtype, copy=copy) for name in own}
    module.load_state_dict(values, assign=True)


def in_short(items: list[str], separator: str) -> str:
    """Join the first NAMED_IN_ERRORS items and state how many more there are."""
    more = len(items) - NAMED_IN_ERRORS
    return separator.join(items[:NAMED_IN_ERRORS]) + (f" (and {more} more)" if more > 0 else "")
