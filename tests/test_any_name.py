"""Every legal file name passes all stages, or the first stage refuses it with a message that names it.

Random names (Unicode of all kinds, bytes that are not UTF-8, up to 255 bytes) are given to recordings, clips, speakers
and songs, and all scripts run on them. SVC_NAMES is the number of names (default 120):

    SVC_NAMES=3000 python -m pytest tests/test_any_name.py
"""

from __future__ import annotations

import io
import logging
import os
import random
import shutil
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

import inference_main
import preprocess_flist_config
import preprocess_hubert_f0
import resample
import slice_audio
import train
import train_index
from cluster import train_cluster
from cluster.centres import load_cluster_model
from cluster.retrieval import load_feature_index
from modules.config import load_config, load_diffusion_config, save_config
from modules.console import _OneLine, printable
from modules.data.features import ClipFiles
from modules.data.filelist import read_filelist
from tests.test_variants_end_to_end import SIZES
from tests.tiny import tiny_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have fewer legal names")

NAMES = int(os.environ.get("SVC_NAMES", "120"))
BATCH = 120  # names per run of all stages
SPEAKERS = 9  # per batch
ENTRIES = ("recordings", "dataset_raw", "dataset/44k")  # input folders of stages 0, 1 and 2

# -- names ------------------------------------------------------------------------------------------------------------

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
ODD = LINE_ENDS + "|\\\t\x07\x1b\x1f\x7f\xa0\u200b\u200d\u202e\u3000\ufeff\ufffe\ufffd '\"$%&*?[]{}()<>:;,#~!@=+^`-."
WORDS = [
    "-n", "--help", "yes", "null", "1", "0", "~", "$HOME", "con", "NUL.txt", "a: b", "- a", "spk_mix", "%s", "{}", "*",
    "$x_\\", "G_0", "train", "config.json", ".wav", "a.wav.soft", "caf\u00e9", "cafe\u0301",
    "\U0001f468\u200d\U0001f469", "名 前", "Größe", "e\u0301\u0302\u0303", "\u0301", "ﬁ", "İ", "ß",
]  # fmt: skip


def text(rng: random.Random) -> str:
    """Return up to some dozen characters of one kind."""
    count = rng.randint(1, 12)
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return "".join(rng.choices(ODD, k=rng.randint(1, 3)))
    if kind == 2:
        return "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(count))  # combining marks
    if kind == 3:
        return "".join(chr(rng.randint(0x1F300, 0x1FAFF)) for _ in range(count))  # emoji
    highest = rng.choice((0x7F, 0x24F, 0xD7FF, 0x10FFFF))
    return "".join(chr(code) for code in (rng.randint(1, highest) for _ in range(count)) if not 0xD800 <= code < 0xE000)


def any_name(rng: random.Random, ending: str = "") -> str:
    """A legal name, as os.fsdecode gives it."""
    name = "".join(text(rng) for _ in range(rng.randint(1, 3))).encode()
    kind = rng.randrange(12)
    if kind == 0:
        name = bytes(rng.randint(1, 255) for _ in range(rng.randint(1, 30)))
    elif kind == 1:
        name = rng.choice((b"-", b".", b"..", b" ", b"--")) + name
    elif kind == 2:
        name += rng.choice((b" ", b".", b"\xff", b" .", b"\n"))
    elif kind in (3, 4):  # near the length limits of the stages
        name = (name * 255)[: rng.choice((255, 246, 242, 241, 240, 237, 232, 231, 228, 227))].decode(errors="ignore")
        name = name.encode() + b"n" * rng.randint(0, 3)
    elif kind < 10:
        name = "".join(sign for sign in name.decode() if sign.isprintable()).encode() or b"n"  # a name that may pass
    name = name.replace(b"/", b"_")[: 255 - len(ending)] + ending.encode()
    return os.fsdecode(name if name not in (b".", b"..") else b"n")


def twins(rng: random.Random, name: str) -> str:
    """Return a different name that, in most cases, is the same file on other systems."""
    return rng.choice((name.swapcase, lambda: unicodedata.normalize(rng.choice(("NFC", "NFD")), name)))()


def key(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold()).rstrip(" .")


# -- a batch ----------------------------------------------------------------------------------------------------------


@dataclass
class StageOutput:
    """Output lines and exit codes of the scripts, by stage."""

    lines: dict[str, list[str]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def run(self, stage: str, main, *flags: str) -> None:
        stream, out = io.StringIO(newline=""), io.StringIO(newline="")
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_OneLine("%(message)s"))
        handler.setLevel(logging.INFO)
        logger, streams = logging.getLogger("svc"), (sys.stdout, sys.stderr)
        logger.addHandler(handler)
        sys.stdout, sys.stderr = out, stream
        try:
            self.codes[stage] = main(list(flags))
        finally:
            sys.stdout, sys.stderr = streams
            logger.removeHandler(handler)
        assert "Traceback" not in stream.getvalue(), stream.getvalue()
        self.lines[stage] = (stream.getvalue() + out.getvalue()).split("\n")

    def refuses(self, stage: str, path: Path) -> bool:
        """Return whether a line of the stage reports this path."""
        printed = printable(path)
        about = (f"{printed} has", f"{printed} and", f"passed over {printed}:", f"{printed}: its result would")
        return any(sentence in line for line in self.lines[stage] for sentence in about)


def write_recordings(rng: random.Random, count: int) -> list[Path]:
    """Write recordings with random names, each speaker in the input folder of one stage; returns their paths."""
    for entry, rate in (("recordings", 8000), ("dataset/44k", 44100)):
        Path(entry).mkdir(parents=True)
        soundfile.write(f"{entry}.sound", 0.3 * np.sin(np.arange(rate // 2) * (1900 / rate)), rate, format="wav")
    Path("dataset_raw").mkdir()
    recordings: list[Path] = []
    taken: set[str] = set()
    for number in range(SPEAKERS):
        entry = ENTRIES[number % len(ENTRIES)]
        speaker = f"plain {number}" if number < 3 else any_name(rng)
        by_hand = entry == "dataset/44k"
        if key(speaker) in taken or (by_hand and speaker.startswith(".")):
            continue
        taken.add(key(speaker))
        names = {f"k{index}.wav" for index in range(3)}
        while len(names) < 3 + count // SPEAKERS:
            name = any_name(rng, ".wav" if by_hand or rng.random() < 0.6 else "")
            if by_hand and name.startswith("."):
                continue  # hidden ones are counted there, not named
            names.add(name)
            if rng.random() < 0.1 and len(os.fsencode(twin := twins(rng, name))) <= 255 and twin.endswith(".wav"):
                names.add(twin)
        folder = Path(entry, speaker)
        folder.mkdir()
        for name in names:
            shutil.copyfile("dataset/44k.sound" if by_hand else "recordings.sound", folder / name)
            recordings.append(folder / name)
    for entry in ("recordings", "dataset/44k"):
        os.remove(f"{entry}.sound")
    return recordings


def filelist_line(recording: Path) -> str:
    """Return a recording's line in the filelist."""
    stem = recording.stem + ("_0000" if recording.parts[0] == "recordings" else "")
    return f"./dataset/44k/{recording.parent.name}/{stem}.wav"


def prepare() -> StageOutput:
    output = StageOutput()
    output.run("recordings", slice_audio.main, "--min_length", "0.4", "--max_length", "1")
    output.run("dataset_raw", resample.main, "--num_processes", "1")
    output.run("dataset/44k", preprocess_flist_config.main, "--speech_encoder", "mfcc")
    output.run("features", preprocess_hubert_f0.main, "--f0_predictor", "dio", "-d", "cpu")
    return output


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def lines_of(path: str) -> list[str]:
    """Return a filelist's lines; the two readers of so-vits-svc 4.1 and ours must agree."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip().split("|")[0] for line in file]
    whole = Path(path).read_text(encoding="utf-8")
    assert whole.splitlines() == lines and read_filelist(path) == list(map(Path, lines))
    return lines


def train_tiny() -> dict[str, int]:
    """Train a tiny model for one epoch on the prepared data; returns its speakers."""
    config, tiny = load_config("configs/config.json"), tiny_config(epochs=1, batch_size=64, log_interval=10**6)
    for name in SIZES:
        setattr(config.model, name, getattr(tiny.model, name))
    config.train = tiny.train
    save_config(config, "configs/config.json")
    assert load_diffusion_config("configs/diffusion.yaml").spk == config.spk
    output = StageOutput()
    output.run("train", train.main, "-m", "44k", "-d", "cpu")
    output.run("clusters", train_cluster.main)
    output.run("index", train_index.main)
    assert set(output.codes.values()) == {0}, output
    assert set(load_cluster_model("logs/44k/kmeans_10000.pt").speakers) == set(config.spk)
    assert set(load_feature_index("logs/44k/feature_and_index.pkl").indexes) == set(config.spk.values())
    return config.spk


def convert(names: list[str], speakers: dict[str, int]) -> Counter:
    """Convert a song of each name, and one by each speaker; returns the numbers of converted and refused songs."""
    Path("raw").mkdir()
    soundfile.write("song.wav", 0.3 * np.sin(np.arange(4000) / 5), 8000)
    for name in names:
        shutil.copyfile("song.wav", Path("raw", name))
    fates: Counter = Counter()

    def check(output: StageOutput, song: str, printed: Path, speaker: str, more: str = "") -> bool:
        result = Path("results", f"{song}_0key_{speaker}{more}_sovits_dio.wav")
        there, refused = os.path.isfile(result), output.refuses("songs", printed)
        assert there != refused and output.codes["songs"] in ((0, 1) if there else (1, 2)), (result, output)
        assert refused == (len(os.fsencode(result.name)) > 255)
        assert there == (printable(result) in output.lines["songs"])
        fates[f"song {'converted' if there else 'refused'}"] += 1
        return there

    common = ("-f0p", "dio", "-wf", "wav", "-d", "cpu", "-p", "0.1")
    output = StageOutput()
    output.run(
        "songs", inference_main.main, "-n", *(f"raw/{name}" for name in names), f"-s={next(iter(speakers))}", *common
    )
    arrived = [check(output, name, Path("raw", name), next(iter(speakers))) for name in names]
    assert output.codes["songs"] == (0 if all(arrived) else 1 if any(arrived) else 2)
    for speaker in speakers:
        output.run("songs", inference_main.main, "-n", "song", f"-s={speaker}", *common, "-cr", "0.5")
        check(output, "song", Path("song.wav"), speaker, "_0.5")
    return fates


def run_all_stages(rng: random.Random, count: int) -> Counter:
    """Run all stages on a batch of names in the current folder; returns the numbers of each outcome."""
    recordings = write_recordings(rng, count)
    output = prepare()
    before = files()
    lists = {name: Path("filelists", name).read_bytes() for name in ("train.txt", "val.txt")}
    again = prepare()
    assert (again.codes, files()) == (output.codes, before)
    assert lists == {name: Path("filelists", name).read_bytes() for name in lists}

    lines = Counter(lines_of("filelists/train.txt") + lines_of("filelists/val.txt"))
    fates: Counter = Counter()
    for recording in recordings:
        entry = str(recording.parents[1])
        line = filelist_line(recording)
        refused = any(output.refuses(entry, path) for path in (recording, recording.parent))
        assert refused == any(again.refuses(entry, path) for path in (recording, recording.parent))
        if refused:
            fates["recording refused"] += 1
            continue
        assert lines.pop(line) == 1, (recording, output)
        clip = ClipFiles(Path(line))
        assert all(path.is_file() for path in (clip.units, clip.f0, clip.spec, clip.fingerprint)), recording
        fates["recording arrived"] += 1
    assert not lines, "clips of no recording"
    for stage in ENTRIES:
        reported = any(
            " has " in line or " and " in line and "would be one file" in line for line in output.lines[stage]
        )
        assert output.codes[stage] == int(reported), output

    speakers = train_tiny()
    fates += convert(sorted({path.name for path in recordings}), speakers)
    expected = {"recordings", "dataset_raw", "dataset", "filelists", "configs", "logs", "raw", "results", "song.wav"}
    assert {path.name for path in Path().iterdir()} == expected
    for folder, depth in (("dataset_raw", 2), ("dataset/44k", 2), ("results", 1), ("filelists", 1)):
        assert all(len(path.relative_to(folder).parts) <= depth for path in Path(folder).rglob("*")), folder
    return fates


@pytest.mark.parametrize("batch", range(-(-NAMES // BATCH)))
def test_every_name_passes_all_stages_or_is_refused_by_the_first(tmp_path, monkeypatch, batch):
    (tmp_path / "outer" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "work")
    fates = run_all_stages(random.Random(batch), min(BATCH, NAMES))
    assert fates["recording arrived"] > 20 and fates["recording refused"] > 5, fates
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["work"]
    assert [path.name for path in tmp_path.iterdir()] == ["outer"]
    print(dict(fates))
