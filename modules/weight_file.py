"""Weight files of other programs, under ``pretrain/``: found, read safely, and recognised by what they hold."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from modules.console import UserError
from modules.safe_pickle import load_torch_inert

# What a file is, by one tensor that only its kind has; the first match counts (WavLM has HuBERT's names as well).
FAMILIES = {
    "Whisper": "encoder.blocks.0.attn.query.weight",
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


def find_weight_file(name: str, folder: str | Path, user: str, what: str) -> Path:
    """The path of the weight file ``name`` that ``user`` ("the speech encoder 'vec768l12'") needs, ``what`` in words.

    Raises UserError naming the file, the folder and where it is described.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise UserError(f"{user} needs '{name}' in {path.parent}/: {what}; pretrain/README.md describes it")
    return path


def read_weight_file(path: str | Path, family: str) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU, as stored (many such files are half precision).

    Raises UserError when the file is unreadable or refused (see ``safe_pickle``), or is of another family than asked.
    """
    weights = _largest_state_dict(load_torch_inert(path))
    found = recognise(weights)
    if found != family:
        looks = f"looks like a {found} checkpoint" if found else "holds none of the tensors that such a file has"
        raise UserError(f"{path} is not a {family} checkpoint: it {looks}; pretrain/README.md says what goes there")
    return weights


def recognise(weights: dict[str, Tensor]) -> str | None:
    """Which of the known families a state dict belongs to, or None."""
    for family, marker in FAMILIES.items():
        if any(prefix + marker in weights for prefix in _PREFIXES):
            return family
    return None


def _largest_state_dict(checkpoint: object) -> dict[str, Tensor]:
    """Programs keep their weights at the top, or under ``model``, ``state_dict``, ``generator`` and the like."""
    dicts = [checkpoint, *checkpoint.values()] if isinstance(checkpoint, dict) else []
    tensors = [
        {k: v for k, v in one.items() if isinstance(k, str) and isinstance(v, Tensor)}
        for one in dicts
        if isinstance(one, dict)
    ]
    return max(tensors, key=len, default={})
