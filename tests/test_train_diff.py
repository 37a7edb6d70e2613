"""train_diff.py and diffusion/training.py: a run resumes exactly, stops cleanly, and refuses wrong input at once."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

import train_diff
from diffusion import training
from diffusion.saved_models import diffusion_checkpoints, read_newest_diffusion
from diffusion.step import learning_rate
from diffusion.training_log import TrainingLog, clock
from diffusion.unit2mel import build_unit2mel, load_unit2mel
from modules import progress_lines
from modules.config import load_diffusion_config, save_diffusion_config
from modules.console import UserError
from modules.training import checkpoint
from modules.training.autosave import AutosaveTimer
from modules.training.interruption import StopSignal
from modules.training.loop import MAX_SKIPPED_STEPS
from tests.another_run import another_run, needs_locks
from tests.run_files import age_events, event_steps
from tests.tiny import MEL, tiny_diffusion_config, write_diffusion_dataset
from tests.vocoder_files import write_vocoder

ROOT = Path(__file__).parents[1]
CPU, DRAW = torch.device("cpu"), TrainingLog.log_clip_picture
PACE = {
    f"pace/{name}"
    for name in (
        "steps_per_second", "data_seconds", "compute_seconds", "data_share", "hours_left", "peak_memory_gib",
        "skipped_steps",
    )
}  # fmt: skip


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_diffusion_dataset(tmp_path, tiny_diffusion_config())
    write_vocoder(tmp_path / "pretrain" / "nsf_hifigan", num_mels=MEL.n_mels)
    monkeypatch.setattr(TrainingLog, "log_clip_picture", lambda *_: None)  # drawing takes longer than training
    return tmp_path


@pytest.fixture
def pictures(work, monkeypatch):
    """Runs in this process draw pictures after all."""
    monkeypatch.setattr(TrainingLog, "log_clip_picture", DRAW)


def prepare(work, expdir="logs/44k/diffusion", **train):
    """Write a configuration with 9 clips, which are 3 steps of 4 clips an epoch; returns its path."""
    config = load_diffusion_config(work / "configs" / "diffusion.yaml")
    config.env.expdir = expdir
    config.infer.speedup = 5
    for key, value in ({"batch_size": 4, "interval_val": 5, "epochs": 4} | train).items():
        setattr(config.train, key, value)
    path = work / "configs" / f"{Path(expdir).name}.yaml"
    save_diffusion_config(config, path)
    return path


def change(path, section, **values):
    config = load_diffusion_config(path)
    for key, value in values.items():
        setattr(getattr(config, section), key, value)
    save_diffusion_config(config, path)
    return path


def run_of(path):
    return training.Run(load_diffusion_config(path), CPU)


def logged_losses(expdir):
    """Step -> its loss in log_info.txt, as text; the last one if a step was repeated."""
    text = (Path(expdir) / "log_info.txt").read_text(encoding="utf-8")
    return {int(step): loss for loss, step in re.findall(r"^epoch: .*loss: (\S+) .*step: (\d+)$", text, re.M)}


def checkpoints(expdir):
    return sorted(path.name for path in Path(expdir).glob("model_*"))


def weights_of(path):
    return checkpoint.load_checkpoint(path)["model"]


# -- going on ---------------------------------------------------------------------------------------------------------

KILLED_AT_STEP_8 = """
import os, signal, sys
from diffusion import training
step = training.Learner.step
def until_killed(learner, *batches, number):
    if number == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(learner, *batches, number=number)
training.Learner.step = until_killed
training.train(sys.argv[1], "cpu")
"""


@needs_locks
def test_a_second_run_in_the_same_folder_is_refused(work):
    with another_run(Path("logs/44k/diffusion")), pytest.raises(UserError, match="another run is training in"):
        training.train(prepare(work), "cpu")
    assert checkpoints("logs/44k/diffusion") == []


def test_a_run_killed_and_resumed_gives_the_losses_of_an_uninterrupted_one(work):
    assert training.train(prepare(work, "whole"), "cpu") == 0
    whole = logged_losses("whole")
    assert list(whole) == list(range(1, 13)) and len(set(whole.values())) == 12
    path = prepare(work, "killed")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_STEP_8, str(path)], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoints("killed") == ["model_5.pt", "model_5.state.pth"], "step 5 lies within an epoch"
    Path("killed/log_info.txt").unlink()
    assert training.train(path, "cpu") == 0
    assert logged_losses("killed") == {step: whole[step] for step in range(6, 13)}
    ends = [weights_of(f"{run}/model_12.pt") for run in ("whole", "killed")]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_in_tensorboard_no_step_of_a_killed_run_appears_twice(work):
    path = prepare(work, interval_val=2, interval_force_save=2, epochs=2)
    training.train(path, "cpu")
    folder = Path("logs/44k/diffusion")
    for left in folder.glob("model_6.*"):
        left.unlink()  # as if the run had been killed between step 6 and its save
    age_events(folder / "logs")
    assert training.train(path, "cpu") == 0
    assert event_steps(folder / "logs", "train/loss") == [1, 2, 3, 4, 5, 6]
    assert event_steps(folder / "logs", "validation/loss") == [2, 4, 6]


def test_without_a_terminal_progress_is_logged_as_lines(work, monkeypatch, caplog):
    caplog.set_level("INFO", "svc")
    moments = itertools.count(0, 25)  # seconds; a clock that advances at each reading
    monkeypatch.setattr(progress_lines, "monotonic", lambda: next(moments))
    training.train(prepare(work, epochs=1), "cpu")
    line = next(line for line in caplog.messages if line.startswith("training: 1 of 3 steps"))
    assert re.search(r"epoch 1, loss [\d.]+, lr 0.001, data \d+%, skipped 0; 0:.* so far, expected end", line)


def test_with_save_opt_the_published_file_is_enough_to_resume_exactly(work):
    training.train(prepare(work, "whole", epochs=3, save_opt=True), "cpu")
    training.train(prepare(work, "parts", epochs=2, save_opt=True), "cpu")
    content = checkpoint.load_checkpoint("parts/model_6.pt")
    assert set(content) == {"global_step", "model", "optimizer"} and content["global_step"] == 6
    Path("parts/model_6.state.pth").unlink()
    training.train(prepare(work, "parts", epochs=3, save_opt=True), "cpu")
    assert logged_losses("parts") == logged_losses("whole")


def test_a_checkpoint_of_the_original_resumes_at_its_step_with_a_fresh_optimizer(work, caplog):
    path = prepare(work, epochs=2)
    training.train(path, "cpu")
    folder = Path("logs/44k/diffusion")
    assert set(checkpoint.load_checkpoint(folder / "model_6.pt")) == {"global_step", "model"}
    (folder / "model_6.state.pth").unlink()
    run = run_of(change(path, "train", epochs=3))
    assert (run.step, run.epoch) == (6, 3) and not run.learner.optimizer.state
    assert "model_6.pt comes without its optimizer's state" in caplog.text


@pytest.mark.parametrize("whole", [True, False])
def test_an_optimizers_state_of_another_network_is_dropped_by_name(work, caplog, whole):
    path = prepare(work, epochs=1, save_opt=whole)
    training.train(path, "cpu")
    holder = Path("logs/44k/diffusion") / ("model_3.pt" if whole else "model_3.state.pth")
    content = checkpoint.load_checkpoint(holder)
    content["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)
    checkpoint.save_checkpoint(holder, content)
    run = run_of(path)
    assert run.step == 3 and not run.learner.optimizer.state
    assert re.search(rf"state in \S*{holder.name} does not fit .*exp_avg of parameter 0 is \[1\]", caplog.text)


def test_a_truncated_newest_checkpoint_is_skipped_and_the_run_resumes_from_the_one_before(work, caplog):
    path = prepare(work, interval_val=2, interval_force_save=2)
    training.train(path, "cpu")
    whole = logged_losses("logs/44k/diffusion")
    newest = Path("logs/44k/diffusion/model_12.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    run = run_of(path)
    assert run.step == 10 and run.learner.optimizer.state
    assert "model_12.pt" in caplog.text and "using the checkpoint before it" in caplog.text
    assert newest.with_name("model_12.pt.broken").exists() and not newest.exists()
    Path("logs/44k/diffusion/log_info.txt").unlink()
    training.train(path, "cpu")
    assert logged_losses("logs/44k/diffusion") == {step: whole[step] for step in (11, 12)}


def test_a_base_model_sets_weights_but_no_step(work, caplog):
    training.train(prepare(work, "base", epochs=1), "cpu")
    trained = checkpoint.load_checkpoint("base/model_3.pt")
    trained["model"]["spk_embed.weight"] = torch.zeros(40, 8)
    checkpoint.save_checkpoint("new/model_0.pt", trained)
    run = run_of(prepare(work, "new"))
    assert run.step == 0 and "base model" in run.start_message and not run.learner.optimizer.state
    own = run.learner.model.state_dict()
    del trained["model"]["spk_embed.weight"]
    assert all(torch.equal(own[name], tensor) for name, tensor in trained["model"].items())
    assert own["spk_embed.weight"].any() and "spk_embed.weight" in caplog.text


def test_a_finished_run_logs_that_and_changes_nothing(work, caplog):
    path = prepare(work, epochs=1)
    training.train(path, "cpu")
    before = Path("logs/44k/diffusion/model_3.pt").read_bytes()
    caplog.clear()
    assert training.train(path, "cpu") == 0
    assert "all 1 epochs are done" in caplog.text
    assert Path("logs/44k/diffusion/model_3.pt").read_bytes() == before


def test_a_checkpoint_of_another_configuration_is_named_with_keys_and_shapes(work):
    path = prepare(work, epochs=1)
    training.train(path, "cpu")
    kept = Path("logs/44k/diffusion/config.yaml").read_bytes()
    change(path, "model", n_hidden=6)
    with pytest.raises(UserError, match=r"3\.pt does not match its diffusion configuration: .*\[8, 8\].*\[6, 8\]"):
        training.train(path, "cpu")
    assert Path("logs/44k/diffusion/config.yaml").read_bytes() == kept


# -- stopping and saving ----------------------------------------------------------------------------------------------


def test_a_signal_ends_the_run_with_a_checkpoint_of_the_last_step(work, start_script):
    path = prepare(work, epochs=100000, interval_val=3)
    process = start_script("train_diff.py", "-c", str(path), "-d", "cpu")
    deadline = time.monotonic() + 120
    while not Path("logs/44k/diffusion/model_3.pt").exists():
        assert process.poll() is None, process.read_errors()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, process.read_errors()
    last = int(re.search(r"stopped at step (\d+)", process.read_errors())[1])
    newest, (content, state) = read_newest_diffusion("logs/44k/diffusion")
    assert newest.step == content["global_step"] == last == max(logged_losses("logs/44k/diffusion"))
    assert state["optimizer"]["state"]


def test_a_full_disk_during_a_save_is_a_warning_and_the_former_checkpoint_stays(work, monkeypatch, caplog):
    path = prepare(work, interval_val=2, epochs=2)
    fsync, calls = os.fsync, []

    def disk_that_fills_up(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:  # the configuration, then two files and two renames of the first save
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", disk_that_fills_up)
    with pytest.raises(UserError, match="could not be written"):
        training.train(path, "cpu")
    assert read_newest_diffusion("logs/44k/diffusion")[0].step == 2
    assert "step 4 is not saved" in caplog.text and "Training goes on" in caplog.text
    assert max(logged_losses("logs/44k/diffusion")) == 6


def test_an_autosave_is_deleted_at_the_next_save(work, monkeypatch):
    save, saved = training.Run.save, []

    def watched(run, **options):
        save(run, **options)
        there = [found.step for found in diffusion_checkpoints("logs/44k/diffusion")]
        saved.append((run.step, options.get("autosave", False), there))

    monkeypatch.setattr(training.Run, "save", watched)
    monkeypatch.setattr(AutosaveTimer, "due", property(lambda autosave: len(saved) in (0, 1, 3)))
    path = prepare(work, interval_val=5, epochs=2)
    training.train(path, "cpu")
    assert saved == [(1, True, [1]), (2, True, [2]), (5, False, [5]), (6, True, [6, 5])]
    resumed = run_of(path)
    assert resumed.step == 6 and [found.step for found in resumed.autosaves] == [6], "they are recognised"


def test_the_same_checkpoints_are_kept_as_in_the_original_with_the_newest_and_the_base_model(work):
    training.train(prepare(work, "base", epochs=1), "cpu")
    checkpoint.save_checkpoint("kept/model_0.pt", checkpoint.load_checkpoint("base/model_3.pt"))
    training.train(prepare(work, "kept", interval_val=2, interval_force_save=4, epochs=3), "cpu")
    kept = ["model_0.pt"] + [f"model_{step}.{kind}" for step in (4, 8, 9) for kind in ("pt", "state.pth")]
    assert checkpoints("kept") == kept
    training.train(prepare(work, "kept", interval_val=2, interval_force_save=4, epochs=4), "cpu")
    kept = ["model_0.pt", "model_12.pt", "model_12.state.pth", "model_4.pt", "model_8.pt", "model_8.state.pth"]
    assert checkpoints("kept") == kept


def test_conversion_reads_a_trained_model(work):
    path = prepare(work, epochs=1)
    training.train(path, "cpu")
    config = load_diffusion_config("logs/44k/diffusion/config.yaml")
    assert config == load_diffusion_config(path)
    model = load_unit2mel("logs/44k/diffusion/model_3.pt", config, MEL.n_mels, CPU)
    weights = weights_of("logs/44k/diffusion/model_3.pt")
    assert list(weights) == list(build_unit2mel(config, MEL.n_mels).state_dict())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert training.train("logs/44k/diffusion/config.yaml", "cpu") == 0


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_learns(work, precision):
    run = run_of(change(prepare(work, amp_dtype=precision, lr=1e-2), "model", timesteps=500, n_chans=32))
    with contextlib.closing(TrainingLog(Path("log"))) as training_log:
        before = run.validation.run(run.learner.model, training_log, 0, StopSignal())
        for batch in islice(run.loader, 20 * len(run.batches)):
            run.learn(batch)
        after = run.validation.run(run.learner.model, training_log, run.step, StopSignal())
    assert after < 0.8 * before and run.skipped_steps == 0


def test_half_precision_is_used_only_if_configured(work):
    path = prepare(work)
    losses = []
    for precision in ("fp32", "fp32", "bf16"):
        run = run_of(change(path, "train", amp_dtype=precision))
        with torch.no_grad():
            run.learner.model.decoder.denoise_fn.output_projection.weight.fill_(0.1)  # its initial weights give zeros
        losses.append(float(run.learn(next(iter(run.loader)))[0]))
    assert losses[0] == losses[1] != losses[2] == pytest.approx(losses[0], rel=0.02)


def test_the_learning_rate_equals_the_published_schedulers_from_any_step():
    train = tiny_diffusion_config(lr=1.0, gamma=0.5, decay_step=3).train
    for begun in (0, 1, 2, 3, 4, 5, 6, 7, 11):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        optimizer.param_groups[0].update(initial_lr=1.0, lr=0.5 ** max((begun - 2) // 3, 0))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5, last_epoch=begun - 2)
        for number in range(begun + 1, begun + 12):
            assert learning_rate(train, number) == optimizer.param_groups[0]["lr"], (begun, number)
            optimizer.step()
            scheduler.step()


def test_a_run_resumes_with_batches_so_large_that_its_epoch_is_over(work):
    path = prepare(work, batch_size=2, epochs=1)
    run = run_of(path)
    for batch in islice(run.loader, 2):
        run.learn(batch)
    run.save()
    assert training.train(change(path, "train", batch_size=9, epochs=3), "cpu") == 0
    assert run_of(path).step == 2 + 2  # nothing of the first epoch is left


def test_rate_and_weight_decay_come_from_the_configuration_and_not_the_checkpoint(work):
    path = prepare(work, epochs=1)
    training.train(path, "cpu")
    run = run_of(change(path, "train", lr=0.25, decay_step=1, weight_decay=0.125, epochs=2))
    run.learn(next(iter(run.loader)))
    assert {(group["lr"], group["weight_decay"]) for group in run.learner.optimizer.param_groups} == {(0.0625, 0.125)}


def test_a_step_that_is_not_finite_changes_no_weight(work):
    run = run_of(prepare(work))
    batch = next(iter(run.loader))
    batch.mel[0, 0, 0] = float("nan")
    before = {name: tensor.clone() for name, tensor in run.learner.model.state_dict().items()}
    run.learn(batch)
    assert (run.step, run.skipped_steps) == (1, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.learner.model.state_dict().items())
    with pytest.raises(UserError, match=r"not been finite for 50 steps .*loss is nan.* lower train.lr .*from step 0"):
        for _ in range(MAX_SKIPPED_STEPS):
            run.learn(batch)


def test_an_error_during_a_run_loses_no_step(work):
    path = prepare(work, cache_all_data=False, interval_val=1000)
    clip = Path(load_diffusion_config(path).data.training_files).read_text(encoding="utf-8").splitlines()[-1]
    Path(f"{clip}.mel.npy").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"mel\.npy"):
        training.train(path, "cpu")
    found = read_newest_diffusion("logs/44k/diffusion")
    assert (found[0].step if found else 0) == max(logged_losses("logs/44k/diffusion"), default=0)


def test_a_run_does_not_use_the_global_generators(work):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    training.train(prepare(work, epochs=1, interval_val=3), "cpu")
    assert torch.equal(torch.get_rng_state(), state)


# -- validation -------------------------------------------------------------------------------------------------------


def tags_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {kind: set(events.Tags()[kind]) for kind in ("scalars", "audio", "images")}


def test_tensorboard_has_the_published_tags(work, pictures):
    training.train(prepare(work, epochs=1, interval_val=3), "cpu")
    assert tags_of("logs/44k/diffusion/logs") == {
        "scalars": {"train/loss", "train/lr", "validation/loss", "train/grad_norm"} | PACE,
        "audio": {"alto_0_gt.wav", "alto_0_pred.wav"},
        "images": {"alto_0.wav"},
    }


def test_the_text_log_has_the_published_columns_and_the_real_time_factor(work):
    training.train(prepare(work, epochs=1, interval_val=3), "cpu")
    lines = Path("logs/44k/diffusion/log_info.txt").read_text(encoding="utf-8").splitlines()
    assert "epoch|batch_idx/num_batches|output_dir|batch/s|lr|time|step" in lines
    row = (
        r"epoch: 1 \| 2/3 \| logs.44k.diffusion \| batch/s: [\d.]+ \| lr: 0\.001 \| loss: [\d.]+ "
        r"\| time: 0:0\d:\d\d\.\d \| step: 2"
    )
    assert any(re.fullmatch(row, line) for line in lines)
    assert any(re.fullmatch(r"alto_0: real-time factor \S+", line) for line in lines)
    assert lines[lines.index("--- <validation> ---") + 1].endswith("at step 3")
    assert clock(3725.06) == "1:02:05.1"


def test_a_name_with_mathematics_characters_gives_a_picture(work, pictures):
    with contextlib.closing(TrainingLog(Path("log"))) as training_log:
        training_log.log_clip_picture(1, "alto_$\\x$ ^_{", torch.zeros(5, 16), torch.zeros(5, 16))


@pytest.mark.parametrize("k_step_max", [0, 10])
def test_two_validations_of_one_model_are_equal(work, k_step_max):
    run = run_of(change(prepare(work), "model", k_step_max=k_step_max))
    logged = []

    class FakeLog:
        def log_clip_picture(self, step, name, target, made):
            logged.append((name, target, made))

        def log_clip_audio(self, step, name, real, made, sampling_rate):
            logged.append((name, real, made))

        def log_validation(self, step, loss):
            logged.append(loss)

    for _ in range(2):
        run.validation.run(run.learner.model, FakeLog(), 0, StopSignal())
        run.step += 1
    (name, target, mel), (_, real, audio), loss = logged[:3]
    assert name == "alto_0" and target.shape == mel.shape == (len(real) // 512, MEL.n_mels)
    assert len(audio) == len(real) // 512 * 512 and audio.abs().max() > 0
    assert torch.equal(mel, logged[3][2]) and torch.equal(audio, logged[4][2]) and loss == logged[5]
    assert run.learner.model.training


def test_the_validation_loss_is_the_mean_over_clips_and_samples(work):
    path = prepare(work, batch_size=3)
    config = load_diffusion_config(path)
    clips = Path(config.data.training_files).read_text(encoding="utf-8").splitlines()[:2]
    Path(config.data.validation_files).write_text("\n".join(clips), encoding="utf-8")
    run, losses = run_of(path), []
    honest = run.learner.model.loss

    def noted(*inputs):
        losses.append(float(honest(*inputs)))
        return torch.tensor(losses[-1])

    run.learner.model.loss = noted
    with contextlib.closing(TrainingLog(Path("log"))) as training_log:
        assert run.validation.run(run.learner.model, training_log, 0, StopSignal()) == pytest.approx(sum(losses) / 6)
    assert len(set(losses)) == 6


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_missing_configured_device_has_a_fallback_and_the_flags_device_has_none(work, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    caplog.set_level("INFO", "svc")
    config = tiny_diffusion_config()
    config.device = "cuda"
    assert training.choose_device(config, None).type != "cuda"
    assert "this machine has no cuda:0 (the configuration's device)" in caplog.text
    assert training.choose_device(config, "cpu") == CPU
    with pytest.raises(UserError, match="'cuda' is not available"):
        training.choose_device(config, "cuda")


def refused(capsys, path):
    """The script's error line; checks that nothing was written."""
    assert train_diff.main(["-c", str(path), "-d", "cpu"]) == 2
    assert not Path("logs").exists()
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_without_its_vocoder_is_refused_with_advice(work, capsys):
    Path("pretrain/nsf_hifigan/model").unlink()
    sentence = refused(capsys, prepare(work))
    assert "needs 'model' in pretrain/nsf_hifigan" in sentence and "pretrain/README.md" in sentence


@pytest.mark.parametrize(
    "section, values, sentence",
    [
        ("train", {"amp_dtype": "fp16"}, "train.amp_dtype fp16 needs a GPU"),
        ("infer", {"speedup": 20}, "infer.speedup 20 leaves infer.method dpm-solver++ too few"),
        ("model", {"k_step_max": 4}, "model's 4 steps"),
        ("data", {"duration": 1}, "lower data.duration"),
        ("data", {"encoder": "vec768l13"}, "unknown speech encoder 'vec768l13'"),
        ("data", {"encoder_out_channels": 7}, "run 'python preprocess_hubert_f0.py"),
        ("data", {"block_size": 256}, "has 44100 Hz and 512 samples a frame"),
        ("data", {"training_files": "filelists/none.txt"}, "there is no filelists/none.txt"),
        ("model", {"n_spk": 1, "n_chans": 0}, "model.n_chans is 0"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    work, capsys, section, values, sentence
):
    assert sentence in refused(capsys, change(prepare(work), section, **values))


def test_features_of_another_encoder_are_refused_without_the_cache_too(work, capsys):
    path = change(prepare(work, cache_all_data=False), "data", encoder_out_channels=7)
    assert "soft.pt has 8 features" in refused(capsys, path)


def test_an_empty_validation_list_is_refused(work, capsys):
    Path("filelists/val.txt").write_text("", encoding="utf-8")
    assert "val.txt names no clip" in refused(capsys, prepare(work))


def swap_speakers(config):
    config.spk = dict(zip(config.spk, reversed(config.spk.values()), strict=True))


@pytest.mark.parametrize(
    ("change_config", "words"),
    [
        (lambda config: setattr(config.data, "encoder", "vec256l9"), "data.encoder is 'mfcc' there and 'vec256l9' now"),
        (swap_speakers, "the speakers are"),
    ],
)
def test_a_run_does_not_resume_as_another_model_of_the_same_shapes(work, change_config, words):
    path = prepare(work, epochs=1)
    training.train(path, "cpu")
    config = load_diffusion_config(path)
    change_config(config)
    save_diffusion_config(config, path)
    before = Path("logs/44k/diffusion/config.yaml").read_bytes()
    with pytest.raises(UserError, match=words):
        training.train(path, "cpu")
    assert Path("logs/44k/diffusion/config.yaml").read_bytes() == before
