"""doctor.py: nothing but ok on a good project; on a broken one the cause and its cure, and no other error."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

import doctor
import preprocess_flist_config
import preprocess_hubert_f0
import resample
import train
from checkup import machine as machine_module
from checkup import sound
from checkup.machine import Gpu, Machine, judge, measure, supports
from checkup.project import every_nth
from cluster.centres import save_cluster_model
from downloads.catalog import FILES
from downloads.fetching import hash_of
from modules.config import load_config, load_diffusion_config, save_config, save_diffusion_config
from modules.data.features import ClipFiles
from modules.temporary_file import MARK, temporary_name
from tests.generator_files import config_of, write_generator_file
from tests.pitch_files import write_fcpe
from tests.test_variants_end_to_end import SIZES, record
from tests.tiny import tiny_config
from vits.training_log import TrainingLog

GIB = 2**30
GOOD = Machine(
    python=(3, 11), torch="2.13.0", memory=16 * GIB, disk=100 * GIB, ffmpeg="/usr/bin/ffmpeg", encoding="utf-8"
)
CARD = Gpu("RTX 5090", (12, 0), 32 * GIB, 31 * GIB)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder in which stages 1 to 4 were run on short recordings of two voices, with a weight file."""
    folder = tmp_path_factory.mktemp("good")
    for number in range(8):
        voice = ("alto", "tenor")[number % 2]
        record(folder / "dataset_raw" / voice / f"{number}.wav", 0.6 + 0.05 * number, 180 + 20 * number)
    (folder / "pretrain").mkdir()
    write_fcpe(folder / "pretrain" / "fcpe.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("_mel", "_curves"):  # pictures take as long as training
            patch.setattr(TrainingLog, name, lambda *_: None)
        assert resample.main(["--num_processes", "1"]) == 0
        assert preprocess_flist_config.main(["--speech_encoder", "mfcc"]) == 0
        config, tiny = load_config("configs/config.json"), tiny_config(epochs=1, batch_size=2, log_interval=1000)
        for key in SIZES:
            setattr(config.model, key, getattr(tiny.model, key))
        config.train = tiny.train
        save_config(config, "configs/config.json")
        assert preprocess_hubert_f0.main(["--f0_predictor", "pm", "-d", "cpu"]) == 0
        assert train.main(["-m", "44k", "-d", "cpu"]) == 0
    return folder


@pytest.fixture
def project(good, tmp_path, monkeypatch) -> Path:
    """A copy of the good project, in which clips are newer than recordings, on a good machine."""
    folder = tmp_path / "project"
    shutil.copytree(good, folder)
    later = max(path.stat().st_ctime_ns for path in folder.glob("dataset_raw/*/*")) + 1
    for clip in folder.glob("dataset/44k/*/*"):
        os.utime(clip, ns=(later, later))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(machine_module, "measure", lambda: GOOD)
    (source,) = FILES["fcpe.pt"].sources
    small = replace(source, sha256=hash_of(folder / "pretrain/fcpe.pt"))
    monkeypatch.setitem(FILES, "fcpe.pt", replace(FILES["fcpe.pt"], sources=(small,)))
    return folder


def findings_of(capsys, *flags):
    """Run the script with --json; returns its exit code, all findings, and the next step."""
    code = doctor.main(["--json", *flags])
    report = json.loads(capsys.readouterr().out)
    return code, [finding for section in report["sections"].values() for finding in section], report["next"]


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path -> size and modification time of everything in a folder, of folders too."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in (folder, *folder.rglob("*"))
    }  # fmt: skip


def test_a_good_project_has_nothing_but_ok_and_is_not_changed(project, capsys):
    before = files_in(project)
    code, findings, step = findings_of(capsys)
    assert [finding for finding in findings if finding["level"] != "ok"] == []
    assert code == 0 and step == "python inference_main.py -n song.wav -s alto"
    assert files_in(project) == before


def test_json_has_the_findings_of_the_text_in_the_order_of_the_work(project, capsys):
    (project / "dataset/44k/alto/0.wav.f0.npy").unlink()
    assert doctor.main([]) == 1
    text = capsys.readouterr().out
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    order = ["machine", "weights", "recordings", "clips", "lists", "features", "training", "conversion"]
    assert list(report["sections"]) == order
    assert [line for line in text.splitlines() if line in order] == order
    printed = [line[11:] for line in text.splitlines() if line.startswith(("  ok", "  warning", "  error"))]
    assert printed == [finding["what"] for section in report["sections"].values() for finding in section]
    assert text.rstrip().endswith(f"next: {report['next']}")


# -- broken projects --------------------------------------------------------------------------------------------------


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
    "centres of other voices": (centres_of_other_voices, "error", "kmeans_10000.pt is of other", "train_cluster.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_cure_and_causes_no_other_error(project, capsys, name):
    fault, level, cause, cure = FAULTS[name]
    fault()
    before = files_in(project)
    code, findings, step = findings_of(capsys)
    assert files_in(project) == before
    found = [finding for finding in findings if cause in finding["what"]]
    assert [finding["level"] for finding in found] == [level], findings
    assert cure in found[0]["cure"]
    assert [finding for finding in findings if finding["level"] == "error" and finding not in found] == []
    assert code == (level == "error")
    if level == "error":
        assert step == found[0]["cure"]


STAGES = {
    "resample.py": (resample.main, "--num_processes", "1"),
    "preprocess_flist_config.py": (preprocess_flist_config.main,),
    "preprocess_hubert_f0.py": (preprocess_hubert_f0.main, "--f0_predictor", "pm", "-d", "cpu"),
}


CURABLE = [name for name, (*_, cure) in FAULTS.items() if any(stage in cure for stage in STAGES)]
CURABLE.remove("speaker not in the configuration")  # whose last cure is a new run


@pytest.mark.parametrize("name", CURABLE)
def test_following_the_cures_makes_the_project_good(project, capsys, name):
    FAULTS[name][0]()
    for _ in range(4):
        _, findings, step = findings_of(capsys)
        if all(finding["level"] == "ok" for finding in findings):
            return
        cure = next(f["cure"] for level in ("error", "warning") for f in findings if f["level"] == level)
        if cure.startswith("delete them"):
            Path("dataset/44k/alto/0.wav").unlink()  # of both faults that have this cure
        for command in re.findall(r"python (\S+\.py(?: --\w+(?: \w+)?)*)", cure):
            script, *flags = command.split()
            main, *fixed = STAGES[script]
            assert main([*fixed, *flags]) == 0
    pytest.fail(f"after four cures: {[finding for finding in findings if finding['level'] != 'ok']}")


MACHINES = {
    "old Python": (replace(GOOD, python=(3, 9)), "Python 3.9 is too old", "Python 3.13"),
    "package missing": (replace(GOOD, packages=["librosa is missing"]), "librosa is missing",
        "pip install -r requirements.txt"),
    "package of training missing": (
        replace(GOOD, training_packages=["tensorboard is missing"], has_data=True), "tensorboard is missing",
        "pip install -r requirements.txt"),
    "PyTorch missing": (
        replace(GOOD, torch_error="ModuleNotFoundError: torch"), "PyTorch cannot be imported", "pytorch.org"),
    "old PyTorch": (replace(GOOD, torch="2.1.0"), "PyTorch 2.1.0 is too old", "pytorch.org"),
    "PyTorch without CUDA": (replace(GOOD, driver="RTX 4090, 570.1, 24564 MiB"), "has no CUDA", "pytorch.org"),
    "old driver": (replace(GOOD, driver="RTX 4090, 470.1, 24564 MiB", cuda="13.0"), "not usable", "driver"),
    "new GPU": (replace(GOOD, cuda="12.4", gpus=[CARD], architectures=["sm_80", "sm_90"]), "is sm_120", "pytorch.org"),
    "full disk": (replace(GOOD, disk=0.2 * GIB), "0.2 GiB of this disk", "make room"),
    "no permission": (replace(GOOD, read_only=["logs"]), "no permission to write to logs", "owner"),
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINES)
def test_a_fault_of_the_machine_is_named_with_its_cure(name):
    machine, cause, cure = MACHINES[name]
    (found,) = [finding for finding in judge(machine) if finding.level != "ok"]
    assert found.level == "error" and cause in found.what and cure in found.cure


def test_doubtful_machines_are_warnings():
    for machine in (
        replace(GOOD, training_packages=["tensorboard is missing"]), replace(GOOD, memory=GIB),
        replace(GOOD, disk=4 * GIB), replace(GOOD, encoding="ascii"),
        replace(GOOD, python=(3, 99)), replace(GOOD, gpus=[replace(CARD, total=4 * GIB)]),
        replace(GOOD, gpus=[replace(CARD, free=GIB)]),
    ):  # fmt: skip
        assert [finding.level for finding in judge(machine) if finding.level != "ok"] == ["warning"]


def test_binary_code_runs_on_its_major_version_and_intermediate_code_on_newer_ones():
    assert supports(["sm_80"], (8, 6)) and supports(["sm_90a"], (9, 0)) and supports(["sm_120"], (12, 0))
    assert not supports(["sm_86"], (8, 0)) and not supports(["sm_90"], (10, 0))
    assert supports(["compute_90"], (12, 0)) and not supports(["compute_90"], (8, 9))
    assert supports(["gfx90a"], (9, 0)), "ROCm"


def test_this_machine_has_what_the_tests_need():
    machine = measure()
    assert (
        machine.packages == machine.training_packages == [] and machine.torch == torch.__version__ and machine.disk > 0
    )


def test_gpus_are_measured_as_pytorch_reports_them():
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_arch_list=lambda: ["sm_90"],
        get_device_name=lambda number: f"card {number}", get_device_capability=lambda number: (9, number),
        mem_get_info=lambda number: (GIB, 8 * GIB),
    )  # fmt: skip
    backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    library = SimpleNamespace(
        __version__="2.13.0+cu130",
        version=SimpleNamespace(cuda="13.0"),
        backends=backends,
        cuda=cuda,
        device=torch.device,
    )
    machine = Machine()
    machine_module._measure_torch(machine, library)
    assert (machine.torch, machine.cuda, machine.architectures) == ("2.13.0+cu130", "13.0", ["sm_90"])
    assert machine.gpus == [Gpu(f"card {number}", (9, number), 8 * GIB, GIB) for number in range(2)]


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_the_driver_is_that_of_nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'RTX 4090, 570.1, 24564 MiB'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert measure().driver == "RTX 4090, 570.1, 24564 MiB"


def test_a_recording_that_needs_ffmpeg_is_named_where_it_is_missing(project, capsys, monkeypatch):
    Path("dataset_raw/alto/phone.m4a").touch()
    monkeypatch.setattr(machine_module, "measure", lambda: replace(GOOD, ffmpeg=None))
    code, findings, step = findings_of(capsys)
    assert (code, step) == (1, "install ffmpeg (ffmpeg.org)")
    assert [finding["what"] for finding in findings if finding["level"] != "ok"] == [
        "1 recording (dataset_raw/alto/phone.m4a) can only be read with ffmpeg"
    ]


def test_a_machine_without_torch_is_examined_as_far_as_possible(project):
    program = (
        "import sys, doctor\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('torch', 'torchaudio'):\n"
        "            raise ImportError('DLL load failed')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.exit(doctor.main(['--json']))\n"
    )
    root = Path(doctor.__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
        encoding="utf-8",
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    sections = json.loads(run.stdout)["sections"]
    errors = [one["what"] for section in sections.values() for one in section if one["level"] == "error"]
    assert errors == ["PyTorch cannot be imported (ImportError: DLL load failed)"]
    assert [one["level"] for one in sections["clips"] + sections["lists"]] == ["ok", "ok"]


def test_an_empty_folder_is_told_how_to_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine_module, "measure", lambda: GOOD)
    code, findings, step = findings_of(capsys)
    assert code == 0 and {finding["level"] for finding in findings} == {"ok"}
    assert step == "put recordings into dataset_raw/<speaker>/, then: python resample.py"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gone", "step"),
    [
        (("dataset", "filelists", "configs", "logs"), "python resample.py"),
        (("filelists", "configs", "logs"), "python preprocess_flist_config.py"),
        (("logs",), "python train.py -m 44k"),
    ],
)
def test_the_next_stage_is_the_next_step(project, capsys, gone, step):
    for folder in gone:
        shutil.rmtree(folder)
    code, findings, found = findings_of(capsys)
    assert (code, found) == (0, step)
    assert {finding["level"] for finding in findings} == {"ok"}


def test_a_ledger_that_a_killed_run_left_incomplete_is_only_read(project, capsys):
    with open("dataset/44k/.resample_clips.jsonl", "a", encoding="utf-8") as file:
        file.write('{"clip": "alto/')
    before = files_in(project)
    assert findings_of(capsys)[0] == 0
    assert files_in(project) == before


def test_wrong_arguments_give_exit_code_2(project, capsys):
    with pytest.raises(SystemExit) as end:
        doctor.main(["--dta"])
    assert end.value.code == 2


# -- the sound --------------------------------------------------------------------------------------------------------


def write_sound(path: Path, audio: np.ndarray) -> Path:
    soundfile.write(path, audio, 16000, subtype="FLOAT")
    return path


def test_the_measures_of_known_signals(tmp_path):
    time = np.arange(32000) / 16000
    tone = np.where(time < 1, np.sin(2 * np.pi * 200 * time), 0.001 * np.sin(2 * np.pi * 200 * time))
    plain = sound.measure_sound(write_sound(tmp_path / "a.wav", 0.5 * tone))
    assert plain.seconds == 2 and plain.clipped == 0 and plain.silence == pytest.approx(0.5)
    assert plain.level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    assert plain.floor == pytest.approx(plain.level - 60, abs=0.1)
    clipped = sound.measure_sound(write_sound(tmp_path / "b.wav", (2 * tone).clip(-1, 1)))
    assert clipped.clipped == pytest.approx(0.5 * 2 / 3, abs=0.05), "2 sin x exceeds 1 for two thirds of the time"
    assert sound.measure_sound(write_sound(tmp_path / "c.wav", 0.5 * tone + 0.05)).offset == pytest.approx(
        0.05, abs=1e-3
    )


def test_data_names_what_stands_out_and_draws_one_picture(project, capsys):
    audio, rate = soundfile.read("dataset_raw/alto/0.wav")
    soundfile.write("dataset_raw/alto/0.wav", (8 * audio).clip(-1, 1), rate)
    before = set(files_in(project))
    assert doctor.main(["--data", "report/data.png", "--json"]) == 1, "the recording is newer than its clip"
    findings = json.loads(capsys.readouterr().out)["sections"]["sound"]
    texts = [finding["what"] for finding in findings]
    assert any("alto: 1 file (dataset_raw/alto/0.wav) clipped" in text for text in texts)
    assert not any("tenor: 1 file" in text and "clipped" in text for text in texts)
    assert any(text.startswith("tenor: 0.0 minutes in 4 files") or "tenor: 0.1 minutes in 4" in text for text in texts)
    assert sorted(set(files_in(project)) - before) == [str(project / "report"), str(project / "report/data.png")]
    assert Path("report/data.png").read_bytes().startswith(b"\x89PNG")
    f0 = ClipFiles(project / "dataset/44k/tenor/1.wav").read_f0()[0]
    assert np.median(f0) == pytest.approx(200, rel=0.02), "the F0 that the report reads"


def test_samples_are_evenly_spaced():
    assert every_nth(range(10), 5) == [0, 2, 4, 6, 8] and every_nth(range(3), 5) == [0, 1, 2] and every_nth([], 5) == []
