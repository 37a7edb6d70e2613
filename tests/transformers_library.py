"""The transformers library, an oracle of tests, which are skipped if it cannot be imported."""

from __future__ import annotations

import pytest

from modules.audio.torchaudio_guard import import_torchaudio

import_torchaudio()  # which the library's audio networks import
transformers = pytest.importorskip("transformers", reason="transformers is not installed (requirements-dev.txt)")
