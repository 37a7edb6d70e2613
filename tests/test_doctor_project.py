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

import pytest
import torch

import doctor
import preprocess_flist_config
import preprocess_hubert_f0
import resample
from checkup import examination
from checkup.finding import Finding, conclusion
from checkup.project import Project
from tests.doctor_project import GOOD, copy_project, enter_copy, files_in, findings_of, set_machine
from tests.project_faults import FAULTS


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return copy_project(tmp_path / "project", monkeypatch)


def test_a_good_project_has_nothing_but_ok_and_is_not_changed(project, capsys):
    before = files_in(project)
    code, findings, step = findings_of(capsys)
    assert [finding for finding in findings if finding["level"] != "ok"] == []
    assert code == 0 and step == "python inference_main.py -n song.wav -s alto"
    assert files_in(project) == before


def test_a_copied_project_has_only_a_warning(tmp_path, monkeypatch, capsys):
    enter_copy(tmp_path / "copy", monkeypatch)
    code, findings, _ = findings_of(capsys)
    (doubt,) = [finding for finding in findings if finding["level"] != "ok"]
    assert code == 0 and doubt["level"] == "warning"
    assert doubt["what"].startswith("8 recordings (dataset_raw/alto/0.wav,")
    assert doubt["what"].endswith("copied or moved after the clip was made; resample.py would make the clips again")


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


# For each stage, with its flags, one fault whose cure it is.
CURABLE = (
    *("new recording", "deleted recording", "clip of another rate"),
    *("list names a missing clip", "features of the encoder", "edited clip"),
)


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


def test_a_recording_that_needs_ffmpeg_is_named_where_it_is_missing(project, capsys, monkeypatch):
    Path("dataset_raw/alto/phone.m4a").touch()
    set_machine(monkeypatch, replace(GOOD, ffmpeg=None))
    code, findings, step = findings_of(capsys)
    assert (code, step) == (1, "install ffmpeg (ffmpeg.org)")
    assert [finding["what"] for finding in findings if finding["level"] != "ok"] == [
        "1 recording (dataset_raw/alto/phone.m4a) can only be read with ffmpeg"
    ]


def test_sound_beside_the_speakers_folders_is_named(project, capsys):
    Path("dataset_raw/alto/0.wav").rename("dataset_raw/loose.wav")
    for number in range(6):
        Path(f"dataset_raw/tenor/{number}.txt").touch()
    _, findings, _ = findings_of(capsys)
    doubts = [finding["what"] for finding in findings if "passed over" in finding["what"]]
    assert doubts[0] == (
        "passed over dataset_raw/loose.wav: it lies beside the speakers' folders; move it into one of them"
    )
    assert len(doubts) == 6 and doubts[5] == "2 other files in dataset_raw passed over"


def test_sound_without_any_speakers_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    set_machine(monkeypatch, GOOD)
    Path("dataset_raw").mkdir()
    Path("dataset_raw/loose.wav").touch()
    code, findings, _ = findings_of(capsys)
    (doubt,) = [finding for finding in findings if finding["level"] != "ok"]
    assert code == 0 and doubt["level"] == "warning" and "move it into one of them" in doubt["what"]


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


@pytest.mark.parametrize(
    ("machine", "problem", "level"),
    [
        (GOOD, ModuleNotFoundError("soundfile"), "error"),
        (replace(GOOD, packages=["soundfile is missing"]), ModuleNotFoundError("soundfile"), "warning"),
        (replace(GOOD, torch_error="OSError"), ImportError("torch"), "warning"),
        (replace(GOOD, training_packages=["tensorboard is missing"]), ModuleNotFoundError("tensorboard"), "warning"),
        (replace(GOOD, training_packages=["tensorboard is missing"]), ImportError("DLL load failed"), "error"),
    ],
)
def test_a_section_without_its_package_is_an_error_unless_the_machine_explains_it(monkeypatch, machine, problem, level):
    def fail(project):
        raise problem

    monkeypatch.setattr(examination, "SECTIONS", {"clips": SimpleNamespace(load=lambda: fail)})
    (finding,) = dict(examination.examine(Project(), machine))["clips"]
    assert finding.level == level and str(problem) in finding.what
    assert finding.cure == ("pip install --force-reinstall -r requirements.txt" if level == "error" else "")


def test_nothing_is_wrong_only_where_all_is_ok():
    assert conclusion([Finding("ok", "a")]) == "nothing is wrong"
    assert conclusion([Finding("ok", "a"), Finding("warning", "b")]) == "no error, but warnings"
    assert conclusion([Finding("ok", "a", "c"), Finding("warning", "b")]) == "next: c"


def test_a_generator_that_does_not_fit_its_configuration_cannot_convert_where_there_is_nothing_else(project, capsys):
    for folder in ("dataset", "dataset_raw", "filelists", "configs"):
        shutil.rmtree(folder)
    FAULTS["generator of other sizes"][0]()
    code, findings, _ = findings_of(capsys)
    (fault,) = [finding["what"] for finding in findings if finding["level"] == "error"]
    assert code == 1 and "cannot convert" in fault and "does not match its config.json" in fault


def test_a_base_model_of_other_speakers_beside_the_runs_configuration_is_no_fault(project, capsys):
    for letter in "GD":
        next(Path("logs/44k").glob(f"{letter}_*")).replace(f"logs/44k/{letter}_0.pth")
    next(Path("logs/44k").glob("state_*")).unlink()
    content = torch.load("logs/44k/G_0.pth", weights_only=True)
    content["model"]["emb_g.weight"] = torch.zeros(200, 4)
    torch.save(content, "logs/44k/G_0.pth")
    code, findings, _ = findings_of(capsys)
    assert code == 0 and [finding for finding in findings if finding["level"] != "ok"] == []
    assert findings[-1]["what"].startswith("no model to convert with yet")


def test_an_empty_folder_is_told_how_to_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    set_machine(monkeypatch, GOOD)
    code, findings, step = findings_of(capsys)
    assert code == 0 and {finding["level"] for finding in findings} == {"ok"}
    assert step == "put recordings into dataset_raw/<speaker>/, then: python resample.py"
    whats = [finding["what"] for finding in findings]
    assert "the speech encoder is not known yet; step 2 writes it to configs/config.json" in whats
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


@pytest.mark.parametrize("flags", [("--in_dir", "nope"), ("--source_dir", "nada"), ("-c", "no.json")])
def test_a_missing_folder_or_configuration_given_by_a_flag_is_wrong_input(project, capsys, flags):
    assert doctor.main([*flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and f"there is no {'' if flags[0] == '-c' else 'folder '}{flags[1]}" in printed.err
