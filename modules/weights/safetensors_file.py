"""Weights in the safetensors format: names and tensors, and nothing that could run."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from modules.console import UserError

SUFFIX = ".safetensors"


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Of a tensor with several names safetensors' own ``save_model`` writes one, and notes the others as its aliases:
    they come back too. Raises UserError when the file is truncated or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            aliases = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as safetensors; it is truncated or of another kind "
            f"({error})"
        ) from None
    return {alias: tensors[name] for alias, name in aliases.items() if name in tensors} | tensors
