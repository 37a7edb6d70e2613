"""Weight files are recognised by what they hold."""

from __future__ import annotations

import pytest
import torch

from modules.console import UserError
from modules.weights.weight_file import read_weight_file, recognise
from tests import parity
from tests.checkpoint_files import contentvec_weights

SMALL = {"layers": 1, "width": 64, "convolutions": 8, "final": 16}


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_are_found_wherever_a_program_keeps_them(tmp_path, key):
    weights = contentvec_weights(**SMALL)
    torch.save({key: weights, "epoch": 3} if key else weights, tmp_path / "a.pt")
    assert read_weight_file(tmp_path / "a.pt", "fairseq HuBERT").keys() == weights.keys()


def test_another_family_is_called_by_its_name(tmp_path):
    whisper = {"encoder.blocks.0.attn.query.weight": torch.zeros(1)}
    torch.save({"dims": {}, "model_state_dict": whisper}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt holds no fairseq HuBERT weights: it looks like Whisper weights"):
        read_weight_file(tmp_path / "a.pt", "fairseq HuBERT")


@pytest.mark.parametrize("content", [{}, [1], {"model": {"a": torch.zeros(1)}}, {"epoch": 3}])
def test_a_file_of_no_known_family_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds none of the tensors that such a file has"):
        read_weight_file(tmp_path / "a.pt", "fairseq HuBERT")


@pytest.mark.parametrize(
    ("fixture", "family"),
    [
        ("A_default_infer", "SoVITS generator"),
        ("B_mpd", "SoVITS discriminator"),
        ("E_rmvpe_net", "RMVPE"),
        ("E_fcpe", "FCPE"),
        ("F_denoiser", "shallow diffusion"),
        ("G_nsf_hifigan", "NSF-HiFiGAN"),
        ("H_contentvec", "fairseq HuBERT"),
        ("H_hubert_large_4layers", "fairseq HuBERT"),
        ("H_wavlm_base_plus", "WavLM"),
        ("H_hubertsoft", "HuBERT-Soft"),
        ("H_dphubert", "DPHuBERT"),
        ("H_whisper_medium", "Whisper"),
    ],
)
def test_families_are_recognised_by_the_original_programs_names(fixture, family):
    names = parity.load_meta(fixture)["state_dict"]
    assert recognise(dict.fromkeys(names)) == family
