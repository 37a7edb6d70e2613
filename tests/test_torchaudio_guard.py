"""torchaudio can be imported with a PyTorch that its compiled part was not built for.

Each claim runs in a process of its own: what one import leaves in ``sys.modules`` is what these tests are about.
"""

from __future__ import annotations

import subprocess
import sys

BREAK_THE_COMPILED_PART = """
import ctypes, torch
real = torch.ops.load_library
def refuse(path):
    raise OSError(f"Could not load this library: {path}")
torch.ops.load_library = refuse
"""


def run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_imports_torchaudio_can_be_imported_when_the_compiled_part_cannot():
    printed = run(
        BREAK_THE_COMPILED_PART
        + """
from modules.audio.torchaudio_guard import import_torchaudio
torchaudio = import_torchaudio()
assert import_torchaudio() is torchaudio
import torchcrepe, torchaudio.transforms, torchaudio.models
wave = torch.randn(1, 800)
print(tuple(torchaudio.transforms.Resample(16000, 8000)(wave).shape), torchaudio.models.hubert_base.__name__)
"""
    )
    assert printed.split("\n")[0] == "(1, 400) hubert_base"


def test_a_working_torchaudio_is_left_as_it_is():
    run(
        """
import sys
from types import ModuleType
working = sys.modules["torchaudio"] = ModuleType("torchaudio")
from modules.audio.torchaudio_guard import import_torchaudio
assert import_torchaudio() is working
assert "torchaudio._extension" not in sys.modules
"""
    )


def test_nothing_is_imported_before_the_call():
    run("import sys, modules.audio.torchaudio_guard; assert not {'torch', 'torchaudio'} & set(sys.modules)")
