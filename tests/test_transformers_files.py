"""Encoders from files in the layout of transformers equal those from files of fairseq and Microsoft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.console import UserError
from tests.checkpoint_files import contentvec_weights, wavlm_checkpoint
from tests.encoder_files import BASE, write_encoder_file
from vencoder import ENCODERS, build_encoder
from vencoder.fairseq_hubert import NAMES as HUBERT_NAMES
from vencoder.renaming import rename
from vencoder.wavlm import NAMES as WAVLM_NAMES

NEW, OLD = ("parametrizations.weight.original0", "parametrizations.weight.original1"), ("weight_g", "weight_v")
AUDIO = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def hubert() -> dict[str, Tensor]:
    """ContentVec's weights by the names of transformers' HubertModel, and its final projection."""
    return rename(contentvec_weights(**BASE), HUBERT_NAMES, "weights") | {"masked_spec_embed": torch.zeros(768)}


def older(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename normed weights as PyTorch before 2.0 does."""
    return {name.replace(NEW[0], OLD[0]).replace(NEW[1], OLD[1]): tensor for name, tensor in weights.items()}


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


def test_the_names_are_those_of_transformers(hubert):
    from tests.transformers_library import transformers

    config = transformers.HubertConfig(conv_dim=[16] * 7, intermediate_size=32, num_conv_pos_embeddings=16)
    with torch.device("meta"):
        model = transformers.HubertModel(config)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own == {name: tuple(x.shape) for name, x in hubert.items() if not name.startswith("final_proj.")}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("contentvec/pytorch_model.bin", "old"),
        ("contentvec/model.safetensors", "new"),
        ("content-vec-best/pytorch_model.bin", "prefixed"),
        ("checkpoint_best_legacy_500.pt", "new"),
        ("hubert_base.pt", "old"),
    ],
)
def test_contentvec_in_the_layout_of_transformers_gives_the_features_of_fairseqs_file(tmp_path, hubert, name, layout):
    torch.save({"model": contentvec_weights(**BASE)}, tmp_path / "checkpoint_best_legacy_500.pt")
    wanted = {key: build_encoder(key, folder=tmp_path)(AUDIO) for key in ("vec768l12", "vec256l9")}
    (tmp_path / "checkpoint_best_legacy_500.pt").unlink()
    weights = older(hubert) if layout == "old" else hubert
    if layout == "prefixed":
        weights = {f"hubert.{key}": tensor for key, tensor in weights.items()}
    write(tmp_path / name, weights)
    for key, features in wanted.items():
        torch.testing.assert_close(build_encoder(key, folder=tmp_path)(AUDIO), features, rtol=0, atol=1e-5)


def test_contentvec_without_its_projection_loads_if_none_is_needed(tmp_path, hubert):
    weights = {name: tensor for name, tensor in hubert.items() if not name.startswith("final_proj.")}
    write(tmp_path / "contentvec/model.safetensors", weights)
    assert build_encoder("vec768l12", folder=tmp_path)(AUDIO).shape[1] == 768
    with pytest.raises(UserError, match="has no final_proj, which this encoder ends with"):
        build_encoder("vec256l9", folder=tmp_path)


@pytest.mark.parametrize("name", ["wavlm-base-plus/pytorch_model.bin", "wavlm-base-plus/model.safetensors"])
def test_wavlm_in_the_layout_of_transformers_gives_the_features_of_microsofts_file(tmp_path, name):
    checkpoint = wavlm_checkpoint(buckets=320, max_distance=800, **BASE)
    torch.save(checkpoint, tmp_path / "WavLM-Base+.pt")
    wanted = build_encoder("wavlmbase+", folder=tmp_path)(AUDIO)
    (tmp_path / "WavLM-Base+.pt").unlink()
    weights = rename(checkpoint["model"], WAVLM_NAMES, "weights")
    write(tmp_path / name, older(weights) if name.endswith(".bin") else weights)
    torch.testing.assert_close(build_encoder("wavlmbase+", folder=tmp_path)(AUDIO), wanted, rtol=0, atol=1e-5)


def test_the_published_name_is_preferred(tmp_path, hubert):
    torch.save({"model": contentvec_weights(**BASE)}, tmp_path / "checkpoint_best_legacy_500.pt")
    write(tmp_path / "contentvec/pytorch_model.bin", {"other": torch.zeros(1)})
    build_encoder("vec768l12", folder=tmp_path)


CONTENTVEC = ENCODERS["vec768l12"].weight


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"quantizer.vars": 0, "encoder.layers.0.self_attn.k_proj.weight": 0}, "wav2vec 2.0 weights"),
        ({"w2v_encoder.w2v_model.encoder.layers.0.self_attn.k_proj.weight": 0}, "wav2vec 2.0 weights"),
        ({"wav2vec2.encoder.layers.0.attention.k_proj.weight": 0}, "wav2vec 2.0 weights"),
        ({"encoder.layers.12.self_attn_layer_norm.weight_ln.weight": 0,
          "encoder.layers.0.self_attn.k_proj.weight": 0}, "non-legacy ContentVec weights"),
        ({"enc_p.emb_phone.weight": 0, "enc_p.proj.weight": 0}, "RVC model weights"),
        ({"enc_p.proj.weight": 0}, "SoVITS generator weights"),
        ({"hubert.encoder.layers.0.attention.k_proj.weight": 0, "lm_head.weight": 0}, "lm_head.weight"),
    ],
)  # fmt: skip
def test_another_model_in_contentvecs_path_is_named(tmp_path, weights, words):
    content = {name: torch.zeros(1) for name in weights}
    place = "weight" if "enc_p.emb_phone.weight" in content else "model"
    torch.save({place: content}, tmp_path / CONTENTVEC)
    with pytest.raises(UserError, match=words):
        build_encoder("vec768l12", folder=tmp_path)


def test_wav2vec_2_in_hubert_names_is_recognised_by_its_configuration(tmp_path, hubert):
    write(tmp_path / "contentvec/pytorch_model.bin", hubert)
    for kind, refused in (("hubert", False), ("wav2vec2", True)):
        (tmp_path / "contentvec/config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
        if refused:
            with pytest.raises(UserError, match="it looks like wav2vec2 weights"):
                build_encoder("vec768l12", folder=tmp_path)
        else:
            build_encoder("vec768l12", folder=tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS; .*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page; a failed download leaves one"),
        (b"\r\n <html>", "a web page"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "a 7z archive; unpack it"),
        (b"Rar!\x1a\x07" + bytes(90), "a rar archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(90), "a gzip archive; unpack it"),
        (b'{"error": "not found"}', "a JSON file"),
        ("zip", "a zip archive; unpack it"),
        ("tar", "a tar archive; unpack it"),
    ],
)
def test_files_that_are_no_weights_are_named_by_their_format(tmp_path, content, words):
    path = tmp_path / CONTENTVEC
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/model.pt").write_bytes(bytes(100))
        shutil.move(shutil.make_archive(str(tmp_path / "made"), content, tmp_path / "in"), path)
    with pytest.raises(UserError, match=f"{CONTENTVEC} is not a PyTorch checkpoint: it looks like {words}"):
        build_encoder("vec768l12", folder=tmp_path)


def test_a_file_of_fairseqs_layout_still_loads(tmp_path):
    write_encoder_file("vec768l12", tmp_path)
    assert build_encoder("vec768l12", folder=tmp_path)(AUDIO).isfinite().all()
