"""Reader for weights in the safetensors format, which holds only names and tensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from modules.console import UserError

SUFFIX = ".safetensors"


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, on the CPU.

    If a tensor has several names, safetensors' ``save_model`` writes one and stores the others as aliases; the result
    has all names. Raises UserError if the file is truncated or of another kind.
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
