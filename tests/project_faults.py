"""Faults of a project, each as a function that makes it in the current folder, with doctor.py's cause and cure."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import soundfile
import torch

import doctor
from cluster.centres import save_cluster_model
from modules.config import load_config, load_diffusion_config, save_config, save_diffusion_config
from modules.temporary_file import MARK, temporary_name
from tests.generator_files import config_of, write_generator_file
from tests.pitch_files import write_fcpe


def cut(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def edit(path: str, change) -> None:
    """Change a configuration in place."""
    read, write = (
        (load_config, save_config) if path.endswith("json") else (load_diffusion_config, save_diffusion_config)
    )
    config = read(path)
    change(config)
    write(config, path)


def newest(letter: str) -> Path:
    return next(Path("logs/44k").glob(f"{letter}_*.pth"))


def only_a_configuration() -> None:
    """A project at its beginning, for an encoder whose file is missing."""
    for folder in ("dataset", "dataset_raw", "logs", "filelists", "configs"):
        shutil.rmtree(folder)
    Path("configs").mkdir()
    shutil.copyfile(Path(doctor.__file__).with_name("configs_template") / "config_template.json", "configs/config.json")


def web_page() -> None:
    Path("pretrain/fcpe.pt").write_text("<!DOCTYPE html><title>Sign in</title>", encoding="utf-8")


def other_weights() -> None:
    torch.save({"model": {"enc_p.proj.weight": torch.zeros(3)}}, "pretrain/fcpe.pt")


def replaced_download() -> None:
    entry = {"pretrain/fcpe.pt": {"sha256": "0" * 64, "source": "https://example.org/fcpe.pt"}}
    Path("pretrain/.downloads").mkdir()
    Path("pretrain/.downloads/hashes.json").write_text(json.dumps(entry), encoding="utf-8")


def foreign_weights() -> None:
    Path("pretrain/medium.pt").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")


def newer_recording() -> None:
    time = Path("dataset/44k/alto/0.wav").stat().st_mtime_ns + 10**6  # earlier than the next clip
    os.utime("dataset_raw/alto/0.wav", ns=(time, time))


def clip_of_another_rate() -> None:
    soundfile.write("dataset/44k/alto/0.wav", np.zeros(22050) + 0.1, 22050)


def edited_clip() -> None:
    audio, rate = soundfile.read("dataset/44k/alto/0.wav")
    soundfile.write("dataset/44k/alto/0.wav", audio / 2, rate)


def more_lines() -> None:
    with open("filelists/train.txt", "a", encoding="utf-8") as file:
        file.write("dataset/44k/alto/gone.wav\n")


def list_without_tenor() -> None:
    lines = Path("filelists/train.txt").read_text(encoding="utf-8").splitlines()
    Path("filelists/train.txt").write_text("\n".join(line for line in lines if "tenor" not in line), encoding="utf-8")


def new_speaker() -> None:
    shutil.copytree("dataset/44k/alto", "dataset/44k/carl")
    for path in Path("dataset/44k/carl").iterdir():
        shutil.copystat(Path("dataset/44k/alto") / path.name, path)


def other_generator() -> None:
    own = Path("logs/44k/config.json").read_bytes()
    write_generator_file(newest("G"), config_of(inter_channels=12))
    Path("logs/44k/config.json").write_bytes(own)


def broken_diffusion() -> None:
    Path("logs/44k/diffusion").mkdir()
    Path("logs/44k/diffusion/config.yaml").write_text("model: [", encoding="utf-8")


def generator_with_nan() -> None:
    content = torch.load(newest("G"), weights_only=True)
    content["model"]["emb_g.weight"][0, 0] = torch.nan
    torch.save(content, newest("G"))


def half_a_base_model() -> None:
    for path in (*Path("logs/44k").glob("*_*.pth"), Path("logs/44k/config.json")):
        target = path.with_name("G_0.pth")
        path.replace(target) if path.name.startswith("G_") else path.unlink()


def centres_of_other_voices() -> None:
    save_cluster_model("logs/44k/kmeans_10000.pt", {"carl": np.zeros((2, 72), np.float32)})


def swap_speakers(config) -> None:
    config.spk = {"alto": 1, "tenor": 0}


def of_another_encoder(config) -> None:
    config.data.encoder = "hubertsoft"


def at_32_khz(config) -> None:
    config.data.sampling_rate = 32000


def file_as_logs() -> None:
    shutil.rmtree("logs")
    Path("logs").touch()


def of_256_features(config) -> None:
    config.model.ssl_dim = 256


def copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)


# name: fault, level of the finding, words of its cause, words of its cure
FAULTS = {
    "encoder's file missing": (
        only_a_configuration, "error", "vec768l12 needs pretrain/checkpoint_best",
        "download_pretrain.py --encoder vec768l12"),
    "truncated weights": (lambda: cut(Path("pretrain/fcpe.pt")), "error", "fcpe.pt", "download_pretrain.py --f0 fcpe"),
    "web page as weights": (web_page, "error", "web page", "download_pretrain.py --f0 fcpe"),
    "weights of another network": (other_weights, "error", "SoVITS generator", "download_pretrain.py --f0 fcpe"),
    "weights of another publisher": (
        lambda: write_fcpe(Path("pretrain/fcpe.pt"), seed=1), "warning", "not the publisher's", "download_pretrain.py"),
    "replaced download": (
        replaced_download, "error", "not the file that was downloaded", "download_pretrain.py --f0 fcpe"),
    "pointer as other weights": (foreign_weights, "warning", "pointer of Git LFS", "delete pretrain/medium.pt"),
    "new recording": (
        lambda: copy("dataset_raw/alto/0.wav", "dataset_raw/alto/new.wav"), "error",
        "1 recording (dataset_raw/alto/new.wav) without a clip", "python resample.py"),
    "changed recording": (newer_recording, "error", "newer than the clip", "python resample.py"),
    "deleted recording": (
        lambda: Path("dataset_raw/alto/0.wav").unlink(), "warning", "recording was deleted", "resample.py --prune"),
    "damaged clip": (
        lambda: Path("dataset/44k/alto/0.wav").write_bytes(b"RIFF"), "error", "cannot be read as sound", "resample.py"),
    "clip of another rate": (clip_of_another_rate, "error", "22050 Hz", "python resample.py --sr2 44100"),
    "edited clip": (edited_clip, "error", "of changed clips", "python preprocess_hubert_f0.py"),
    "sidecar file missing": (
        lambda: Path("dataset/44k/alto/0.wav.soft.pt").unlink(), "error", "that were missing (units)",
        "python preprocess_hubert_f0.py"),
    "truncated sidecar file": (
        lambda: cut(Path("dataset/44k/alto/0.spec.pt")), "error", "that were damaged (spec)",
        "python preprocess_hubert_f0.py"),
    "orphan": (
        lambda: copy("dataset/44k/alto/0.wav.f0.npy", "dataset/44k/alto/gone.wav.f0.npy"), "warning",
        "gone.wav.f0.npy) of clips that are gone", "delete"),
    "left by a killed stage": (
        lambda: temporary_name(Path("dataset/44k/alto/0.npy"), MARK).touch(), "warning", "killed",
        "python resample.py"),
    "list names a missing clip": (more_lines, "error", "gone.wav", "python preprocess_flist_config.py"),
    "list without a speaker": (
        list_without_tenor, "error", "training list has no clip of tenor", "preprocess_flist_config"),
    "speaker not in the configuration": (new_speaker, "error", "lacks the speakers carl", "preprocess_flist_config.py"),
    "configuration is no JSON": (
        lambda: cut(Path("configs/config.json")), "error", "config.json is not valid JSON", "--fresh"),
    "features of the encoder": (
        lambda: edit("configs/config.json", of_256_features), "error",
        "mfcc gives 72 features, but the model takes 256", "preprocess_flist_config.py --speech_encoder mfcc"),
    "diffusion of another encoder": (
        lambda: edit("configs/diffusion.yaml", of_another_encoder), "error", "mfcc and hubertsoft",
        "preprocess_flist_config.py"),
    "diffusion of another rate": (
        lambda: edit("configs/diffusion.yaml", at_32_khz), "error", "data.sampling_rate 44100 and 32000",
        "set data.sampling_rate to 44100 in configs/diffusion.yaml"),
    "truncated state": (
        lambda: cut(next(Path("logs/44k").glob("state_*"))), "warning", "from its weights alone",
        "delete logs/44k/state_"),
    "damaged feature index": (
        lambda: Path("logs/44k/feature_and_index.pkl").write_bytes(b"index"), "error", "feature_and_index.pkl",
        "python train_index.py"),
    "link without a target": (
        lambda: Path("dataset_raw/carl").symlink_to("/nowhere/carl"), "warning", "dataset_raw/carl", "repair the link"),
    "file in place of the run": (file_as_logs, "error", "logs is a file, and a folder is needed", "move it away"),
    "run of other speakers": (
        lambda: edit("logs/44k/config.json", swap_speakers), "error", "the speakers are", "-m another_name"),
    "generator of other sizes": (other_generator, "error", "other sizes than the configuration", "-m another_name"),
    "truncated generator": (lambda: cut(newest("G")), "error", "is truncated", "put an intact copy there"),
    "generator without discriminators": (lambda: newest("D").unlink(), "warning", "it can convert", "put logs/44k/D_"),
    "half of a base model": (half_a_base_model, "error", "half of a base model", "put logs/44k/D_0.pth there"),
    "interrupted save": (
        lambda: Path("logs/44k/.0123456789abcdef.saving.pth").touch(), "warning", "interrupted", "train.py -m 44k"),
    "model without its configuration": (
        lambda: Path("logs/44k/config.json").unlink(), "error", "there is no logs/44k/config.json",
        "logs/44k/config.json"),
    "configuration of the run truncated": (
        lambda: cut(Path("logs/44k/config.json")), "error", "logs/44k/config.json is not valid JSON",
        "copy configs/config.json to logs/44k/config.json, if it is the one that the run was trained with"),
    "configuration of the diffusion broken": (
        broken_diffusion, "error", "logs/44k/diffusion/config.yaml",
        "copy configs/diffusion.yaml to logs/44k/diffusion/config.yaml"),
    "generator with NaN": (generator_with_nan, "error", "1 of its", "out of logs/44k"),
    "centres of other voices": (centres_of_other_voices, "error", "kmeans_10000.pt is of other", "train_cluster.py"),
}  # fmt: skip
