"""Run all stages on synthetic data, from recordings to a converted song, and measure the result (``make demo``).

Two synthetic singers (demonstration/singer.py) record a data set, and the script of each stage runs in demo_run/. A
small model is trained on both voices and converts a new song from the dark voice to the bright one. The result is
compared with the same song sung by the bright voice. Then a small diffusion model is trained and refines the song. No
weight files and no GPU are needed; on two CPU cores it takes about six minutes.

Writes demo_run/ (deleted first; a folder that the demo did not make is refused), results/demo.wav,
results/demo_diffusion.wav and results/demo.png. The exit code is 1 if a goal is missed.

    python demo.py
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modules.console import UserError, parse_flags, script

if TYPE_CHECKING:
    from demonstration.singer import Song
    from evaluation.assessment import Assessment

PROJECT = Path(__file__).resolve().parent
MARK = ".made_by_demo"  # this file marks a folder that the demo made and may delete
STEPS = 2000
DISCRIMINATOR_SHARE = 0.8  # share of the steps before the discriminator is used
PHRASES = 14  # per voice, of five to eight seconds
RANGES = {"dark": (45, 64), "bright": (52, 71)}  # MIDI numbers
SONG_RANGE = (52, 64)

# Changes to the configuration that stage 2 writes: a small model and a training of minutes on a CPU.
SMALL_MODEL = {
    "inter_channels": 16, "hidden_channels": 32, "filter_channels": 128, "n_layers": 1, "n_flow_layer": 2,
    "gin_channels": 64, "use_automatic_f0_prediction": False, "resblock": "2", "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]], "upsample_initial_channel": 128,
    "upsample_rates": [8, 4, 4, 4], "upsample_kernel_sizes": [16, 8, 8, 8],
    "discriminator_periods": [2, 3], "discriminator_width": 0.125,
}  # fmt: skip
SEED = 1234
SHORT_TRAINING = {
    "batch_size": 4, "segment_size": 8192, "crop_frames": 40, "learning_rate": 4e-3, "cosine_end": 0.02,
    "all_in_mem": True, "eval_interval": 10**6,
    # The mel loss is enough to learn the words but leaves a buzz at the frame rate. The slow discriminator is used in
    # the last steps only; relative to the mel loss it has nine times the published weight.
    "c_mel": 5,
    # With a larger weight the prior does not learn the words in so few steps.
    "c_kl": 0.011,
}  # fmt: skip
CONVERT = ("-n", "song.wav", "-s", "bright", "-wf", "wav", "-f0p", "pm")
RESULT, REFINED = "song.wav_0key_bright_sovits_pm.wav", "song.wav_0key_bright_sovdiff_pm.wav"
DIFFUSION_STEPS = 100
VOCODER_STEPS = 200
VOCODER = "pretrain/nsf_hifigan/model"
K_STEP = 40  # of the diffusion's 1000 steps, so that the song is refined and not replaced
SMALL_DIFFUSION = {"n_layers": 6, "n_chans": 256, "n_hidden": 128, "k_step_max": 100}
SHORT_DIFFUSION = {"batch_size": 8, "lr": 1e-3, "decay_step": 150, "interval_val": 10**6, "num_workers": 0}
FINE_MEL = {"n_mel_channels": 200}  # resolves single harmonics, so that training soon uses the sine source


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = PROJECT / "demo_run"
    parser.add_argument("--folder", type=Path, default=folder, help="working folder (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="training seed (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_flags(build_parser(), argv)
    # For networks this small, a second thread gains a fifth, but on a busy machine it costs nine tenths of the speed.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began = time.monotonic()
    folder = args.folder.resolve()
    clear(folder)
    source, target = record(folder)
    prepare(folder)
    train_voices(folder, args.steps, args.seed)
    run(folder, "inference_main.py", *CONVERT)
    train_vocoder(folder)
    run(folder, "preprocess_hubert_f0.py", "--f0_predictor", "pm", "--use_diff")
    shrink_diffusion(folder)
    run(folder, "train_diff.py", "-c", "configs/diffusion.yaml")
    run(folder, "inference_main.py", *CONVERT, "-shd", "-ks", str(K_STEP))
    return show(folder / "results", source, target, began)


def clear(folder: Path) -> None:
    """Delete an earlier demo's ``folder`` and make it anew. Raises UserError if the demo did not make the folder."""
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).is_file()):
            raise UserError(f"{folder} was not made by the demo; delete it yourself, or give another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def record(folder: Path) -> tuple[Song, Song]:
    """Write a recording of each voice and the song to convert; returns the song in the dark and in the bright voice."""
    import numpy as np

    from demonstration.singer import BRIGHT, DARK, Note, random_phrase, sing
    from modules.audio.files import write_audio

    print("recording two singers")
    for seed, (name, voice) in enumerate({"dark": DARK, "bright": BRIGHT}.items()):
        rng, notes = np.random.default_rng(seed), []
        for _ in range(PHRASES):
            notes += [*random_phrase(rng, 5.0, *RANGES[name]), Note(60, 0.6, "")]
        song = sing(voice, notes, seed)
        write_audio(folder / "recordings" / name / "session.wav", song.audio, song.sampling_rate)
    notes = random_phrase(np.random.default_rng(7), 12.0, *SONG_RANGE)
    source, target = (sing(voice, notes, seed=7) for voice in (DARK, BRIGHT))
    write_audio(folder / "raw/song.wav", source.audio, source.sampling_rate)
    return source, target


def prepare(folder: Path) -> None:
    """Cut the recordings into clips and prepare them for training."""
    run(folder, "slice_audio.py", "--in_dir", "recordings", "--out_dir", "dataset_raw")
    run(folder, "resample.py")
    run(folder, "preprocess_flist_config.py", "--speech_encoder", "mfcc")
    run(folder, "preprocess_hubert_f0.py", "--f0_predictor", "pm")


def train_voices(folder: Path, steps: int, seed: int = SEED) -> None:
    """Train the synthesizer for about ``steps`` steps."""
    shrink(folder, steps, seed)
    run(folder, "train.py", "-c", "configs/config.json", "-m", "44k")


def run(folder: Path, name: str, *flags: str) -> None:
    """Run a stage's script in ``folder``. Raises UserError if it fails."""
    print(f"\n$ python {' '.join((name, *flags))}", flush=True)
    began = time.monotonic()
    if subprocess.run([sys.executable, PROJECT / name, *flags], cwd=folder).returncode:
        raise UserError(f"{name} failed in {folder}; its message is above")
    print(f"  {time.monotonic() - began:.0f} s")


def shrink(folder: Path, steps: int, seed: int) -> None:
    """Change the configuration of stage 2 for a few minutes of training on a CPU."""
    from modules.config import load_config, save_config

    path = folder / "configs/config.json"
    config = load_config(path)
    for section, values in ((config.model, SMALL_MODEL), (config.train, SHORT_TRAINING), (config.data, FINE_MEL)):
        for key, value in values.items():
            setattr(section, key, value)
    config.train.seed = seed
    config.train.discriminator_start_step = round(DISCRIMINATOR_SHARE * steps)
    config.train.epochs = math.ceil(steps / math.ceil(training_clips(folder) / config.train.batch_size))
    save_config(config, path)


def training_clips(folder: Path) -> int:
    return len((folder / "filelists/train.txt").read_text(encoding="utf-8").splitlines())


def train_vocoder(folder: Path) -> None:
    """Train a vocoder and write it to the path of the published one."""
    from demonstration.vocoder import make_vocoder
    from vits.saved_models import newest_generator

    print("\ntraining a small vocoder")
    clips = sorted((folder / "dataset/44k").glob("*/*.wav"))
    make_vocoder(folder / VOCODER, clips, newest_generator(folder / "logs/44k"), VOCODER_STEPS)


def shrink_diffusion(folder: Path) -> None:
    """Change the diffusion's configuration for half a minute of training on a CPU."""
    from modules.config import load_diffusion_config, save_diffusion_config

    path = folder / "configs/diffusion.yaml"
    config = load_diffusion_config(path)
    for section, values in ((config.model, SMALL_DIFFUSION), (config.train, SHORT_DIFFUSION)):
        for key, value in values.items():
            setattr(section, key, value)
    config.device = "cpu"
    config.train.epochs = math.ceil(DIFFUSION_STEPS / math.ceil(training_clips(folder) / config.train.batch_size))
    save_diffusion_config(config, path)


def show(results: Path, source: Song, target: Song, began: float) -> int:
    """Copy the songs to results/, draw them, and print their figures and the goals. Returns 1 if a goal is missed."""
    from demonstration.report import measure
    from demonstration.vocoder import pitch_error
    from evaluation.picture import draw
    from evaluation.report import table
    from modules.audio.files import read_audio, write_audio

    wav, refined_wav, picture = (PROJECT / "results" / name for name in ("demo.wav", "demo_diffusion.wav", "demo.png"))
    wav.parent.mkdir(exist_ok=True)
    shutil.copyfile(results / RESULT, wav)
    shutil.copyfile(results / REFINED, refined_wav)
    write_audio(results / "target.wav", target.audio, target.sampling_rate)
    result, refined_distance = judge(results, wav, refined_wav)
    draw(picture, result)
    output, rate = read_audio(wav)
    report = measure(output, source.audio, target.audio, source.f0, rate)
    print(f"\n{table(result)}\nafter shallow diffusion: mel-cepstral distance {refined_distance:.2f} dB")
    cents = pitch_error(results.parent / VOCODER)
    print(f"the vocoder's pitch is {cents:.1f} cents off a harmonic tone at most\n\n{report}")
    print(f"\nthe song     {wav}\n  refined    {refined_wav}\nthe picture  {picture}")
    print(f"{time.monotonic() - began:.0f} s in all")
    for goal in report.missed():
        print(f"missed: {goal}")
    if report.missed():
        print("Every stage ran; only the sound missed a goal after so short a training, so the exit code is 1.")
    return 1 if report.missed() else 0


def judge(results: Path, wav: Path, refined: Path) -> tuple[Assessment, float]:
    """Judge the song as evaluate.py does; returns the figures, and the refined song's mel-cepstral distance in dB.

    Judges whose packages are not installed are left out.
    """
    from evaluation.assessment import Assessor
    from evaluation.cache import Cache
    from evaluation.case import Case, Sound
    from evaluation.judges import Panel
    from evaluation.signal_figures import SignalFigures

    cache, folder = Cache(), results.parent
    signals = SignalFigures(cache)
    assessor = Assessor(Panel(cache), signals, sorted((folder / "dataset/44k/bright").glob("*.wav")))
    source, target = folder / "raw/song.wav", results / "target.wav"
    result = assessor.assess([Case("the song", wav, source, target)])
    (excerpt,) = Case("the song, refined", refined, source, target).excerpts()
    result.examples["converted, refined by diffusion"] = excerpt.converted.audio, signals.contour(excerpt.converted)
    return result, signals.of(Sound.read(refined), excerpt)["mcd"]


if __name__ == "__main__":
    raise SystemExit(main())
