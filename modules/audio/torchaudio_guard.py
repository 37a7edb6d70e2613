"""Import ``torchaudio`` even if its compiled part was built for another PyTorch.

The wheels of torchaudio are linked against CUDA. With a CPU build of PyTorch ``import torchaudio`` raises an OSError,
and so does the import of every package that imports it, such as torchcrepe. Its Python part, which is all that such
packages and this program use, works without the compiled one.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

EXTENSION = "torchaudio._extension"


def import_torchaudio() -> ModuleType:
    """Return torchaudio, without its compiled part if that cannot be loaded (forced alignment is missing then).

    Call it before the first import of anything that imports torchaudio. Raises ImportError when it is not installed.
    """
    if "torchaudio" in sys.modules:
        return sys.modules["torchaudio"]
    try:
        return importlib.import_module("torchaudio")
    except (OSError, RuntimeError):  # RuntimeError: built for another CUDA version than PyTorch
        _forget("torchaudio")
    for name, module in _stand_ins().items():
        sys.modules[name] = module
    return importlib.import_module("torchaudio")


def _forget(package: str) -> None:
    """Delete the half-imported modules that a failed import leaves behind."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _stand_ins() -> dict[str, ModuleType]:
    """Return empty modules in place of the compiled part, with the names that torchaudio's Python part uses."""
    extension, utils = ModuleType(EXTENSION), ModuleType(f"{EXTENSION}.utils")
    extension.__path__ = []  # a package, for ``import torchaudio._extension.utils``
    extension.utils = utils
    extension.fail_if_no_align = lambda function: function
    extension.lazy_import_sox_ext = lambda: None
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._IS_RIR_AVAILABLE = False
    return {EXTENSION: extension, utils.__name__: utils}
