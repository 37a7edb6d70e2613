"""The table of speech encoders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modules.console import UserError
from tests.checkpoint_files import write_contentvec_checkpoint
from vencoder import ENCODERS, build_encoder

README = Path(__file__).parents[1] / "pretrain" / "README.md"


def test_the_table_has_the_published_keys_and_mfcc():
    published = """vec768l12 vec256l9 hubertsoft whisper-ppg whisper-ppg-large cnhubertlarge dphubert wavlmbase+
    vec256l9-onnx vec256l12-onnx vec768l9-onnx vec768l12-onnx hubertsoft-onnx"""
    assert set(ENCODERS) == {*published.split(), "mfcc"}


def test_a_row_fills_the_sizes_of_config_json():
    assert ENCODERS["vec768l12"].sizes() == {"ssl_dim": 768, "gin_channels": 768, "filter_channels": 768}
    assert ENCODERS["vec256l9"].sizes() == {"ssl_dim": 256, "gin_channels": 256}
    assert ENCODERS["whisper-ppg-large"].sizes() == dict.fromkeys(("ssl_dim", "gin_channels", "filter_channels"), 1280)
    assert ENCODERS["mfcc"].sizes() == {"ssl_dim": 72}


def test_every_key_is_described_beside_its_file():
    text = README.read_text(encoding="utf-8")
    for key in ENCODERS:
        line = next(line for line in text.splitlines() if f"`{key}`" in line)
        assert ENCODERS[key].weight is None or f"`{ENCODERS[key].weight}`" in line


def test_a_missing_file_is_named_with_its_folder_and_its_description(tmp_path):
    with pytest.raises(UserError, match=r"'vec768l12' needs 'checkpoint_best_legacy_500.pt' in .*pretrain/README.md"):
        build_encoder("vec768l12", folder=tmp_path)


def test_unknown_and_unbuilt_keys_name_those_that_work():
    with pytest.raises(UserError, match="unknown speech encoder 'vec768l2'; known: vec768l12"):
        build_encoder("vec768l2")
    for key in (key for key in ENCODERS if not ENCODERS[key].target):
        with pytest.raises(UserError, match=f"'{re.escape(key)}' is not available in this version; available: vec"):
            build_encoder(key)


def test_a_truncated_file_is_recognised_before_use(tmp_path):
    path = write_contentvec_checkpoint(tmp_path / ENCODERS["vec256l9"].weight, layers=9, width=64)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="checkpoint_best_legacy_500.pt looks truncated, its size is"):
        build_encoder("vec256l9", folder=tmp_path)
