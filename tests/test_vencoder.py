"""The table of speech encoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.console import UserError
from tests.checkpoint_files import write_contentvec_checkpoint
from vencoder import ENCODERS, build_encoder
from vencoder.encoder import SpeechEncoder

README = Path(__file__).parents[1] / "pretrain" / "README.md"


def test_the_table_has_the_published_keys_and_ours():
    published = """vec768l12 vec256l9 hubertsoft whisper-ppg whisper-ppg-large cnhubertlarge dphubert wavlmbase+
    vec256l9-onnx vec256l12-onnx vec768l9-onnx vec768l12-onnx hubertsoft-onnx"""
    small = {f"whisper-ppg-{size}{suffix}" for size in ("tiny", "base", "small") for suffix in ("", ".en")}
    assert set(ENCODERS) == {*published.split(), "mfcc", *small}


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


def test_an_unknown_key_is_refused_with_the_nearest_first():
    with pytest.raises(UserError, match="unknown speech encoder 'vec768l2'; known: vec768l12"):
        build_encoder("vec768l2")


def test_every_row_names_an_existing_class():
    for key in ENCODERS:
        assert issubclass(ENCODERS[key].load(), SpeechEncoder), key


def test_a_truncated_file_is_recognised_before_use(tmp_path):
    path = write_contentvec_checkpoint(tmp_path / ENCODERS["vec256l9"].weight, layers=9, width=64)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="checkpoint_best_legacy_500.pt looks truncated, its size is"):
        build_encoder("vec256l9", folder=tmp_path)
