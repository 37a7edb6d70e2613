"""Fuzz the readers of all file formats: each damaged or hostile file must be read or refused by a UserError.

Small files of every kind that the program reads are built, damaged at random by mutations that suit their formats, and
read in forked processes with limits of memory and time. Any other exception, a crash, or exceeding a limit is a
finding: its file is kept and named, and the exit code is 1. The table has, for each reader, the number of files, the
outcomes, and the most memory (in KiB, and per byte of the file where it was more than 16 MiB) and time of one file. The
last line is JSON. Linux only.

    python benchmarks/fuzz_readers.py --minutes 2
    python benchmarks/fuzz_readers.py --only index --seed 7 --finds finds    # one reader; another seed
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickletools
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # in place of this folder, whose onnx.py would stand for the package

from modules.console import UserError, script  # noqa: E402

BATCH = 80  # files per process
MEMORY, SECONDS = 1 << 30, 10  # bytes, and seconds of processor time, that a file of some kilobytes may take
WAIT = 120  # seconds of wall time, in case a reader blocks
LARGEST = 200_000  # bytes of a damaged file
NOISE = 16 << 20  # bytes by which a process may grow for other reasons than the file: buffers, first-time allocations


@dataclass
class Reader:
    """A reader, undamaged files for it, and the results so far."""

    name: str
    read: Callable[[Path], Any]
    files: list[Path]
    tally: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "refused", "finds"), 0))
    growth: int = 0  # KiB
    per_byte: float = 0.0
    seconds: float = 0.0
    spent: float = 0.0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="duration (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    parser.add_argument("--only", help="readers whose names contain this")
    parser.add_argument("--finds", default="fuzz_finds", help="folder for the files of findings (default: %(default)s)")
    return parser


@script
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if not Path("/proc/self/clear_refs").exists():
        raise UserError("this needs Linux's /proc, to measure memory")
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        readers = [reader for reader in build_readers(Path(folder)) if (arguments.only or "") in reader.name]
        if not readers:
            raise UserError(f"no reader's name contains {arguments.only!r}")
        whole = [file.read_bytes() for reader in readers for file in reader.files]
        for reader in readers:
            for file in reader.files:
                reader.read(file)  # an undamaged file must be readable
        chance, end, finds = random.Random(arguments.seed), time.monotonic() + 60 * arguments.minutes, []
        while (began := time.monotonic()) < end:
            reader = min(readers, key=lambda one: one.spent)  # all get the same time
            finds += run_batch(reader, whole, chance, Path(arguments.finds))
            reader.spent += time.monotonic() - began
    report(readers, finds)
    return 1 if finds else 0


# -- one process ------------------------------------------------------------------------------------------------------


def run_batch(reader: Reader, whole: list[bytes], chance: random.Random, finds_folder: Path) -> list[str]:
    """Read BATCH damaged files in a process; returns a line for each finding."""
    cases = []
    for _ in range(BATCH):
        file = chance.choice(reader.files)
        cases.append((file, damaged(file.read_bytes(), whole, chance)[:LARGEST]))
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _read_all(reader, cases, send)
    os.close(send)
    with open(receive, encoding="utf-8") as pipe:
        results = [json.loads(line) for line in pipe]
    status = os.waitpid(child, 0)[1]
    if len(results) < len(cases):
        reason = f"killed by {signal.Signals(status).name}" if status in set(signal.Signals) else f"status {status}"
        results.append({"outcome": "finds", "what": reason, "growth": 0, "seconds": 0.0})
    found = []
    for (file, content), result in zip(cases, results, strict=False):
        reader.tally[result["outcome"]] += 1
        reader.growth = max(reader.growth, result["growth"] >> 10)
        reader.seconds = max(reader.seconds, result["seconds"])
        if result["growth"] > NOISE:
            reader.per_byte = max(reader.per_byte, result["growth"] / max(len(content), 1))
        if result["outcome"] == "finds":
            finds_folder.mkdir(parents=True, exist_ok=True)
            number = len(list(finds_folder.iterdir()))
            kept = finds_folder / f"{number:04d}-{file.name}"
            kept.write_bytes(content)
            found.append(f"{reader.name}: {kept}: {result['what']}")
            print(found[-1], flush=True)
    return found


def _read_all(reader: Reader, cases: list[tuple[Path, bytes]], send: int) -> None:
    """Read each case in the child process and send a line of JSON about it to the parent; then exit."""
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    limit = _status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for file, content in cases:
        former = file.read_bytes()
        file.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAIT)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        before, began = _status("VmRSS"), time.process_time()
        outcome, what = "read", ""
        try:
            reader.read(file)
        except UserError:
            outcome = "refused"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome, what = "finds", f"{type(error).__name__}: {str(error)[:200]!r} at {place.filename}:{place.lineno}"
        result = {"outcome": outcome, "what": what, "seconds": time.process_time() - began}
        result["growth"] = max(0, _status("VmHWM") - before)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(OSError):
            file.write_bytes(former)
        os.write(send, (json.dumps(result) + "\n").encode())
    os._exit(0)


def _status(key: str) -> int:
    """Return a size of this process from /proc/self/status, in bytes."""
    return 1024 * int(re.search(rf"^{key}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)[1])


def report(readers: list[Reader], finds: list[str]) -> None:
    print("reader                     files    read  refused  finds  most KiB  a byte  most s")
    for one in readers:
        tally = one.tally
        cells = f"{sum(tally.values()):>7} {tally['read']:>7} {tally['refused']:>8} {tally['finds']:>6}"
        print(f"{one.name:<24} {cells} {one.growth:>9} {one.per_byte:>7.0f} {one.seconds:>7.2f}")
    figures = [
        {"reader": one.name, **one.tally, "kib": one.growth, "per_byte": one.per_byte, "seconds": one.seconds}
        for one in readers
    ]
    print(json.dumps({"benchmark": "fuzz_readers", "finds": len(finds), "figures": figures}))


# -- whole files ------------------------------------------------------------------------------------------------------


def build_readers(folder: Path) -> list[Reader]:
    return [*_sounds(folder), *_sidecars(folder), *_models(folder), *_texts(folder), *_graphs(folder)]


def _sounds(folder: Path) -> list[Reader]:
    import numpy as np
    import soundfile

    from modules.audio.mono_file import MonoFile

    sound = 0.3 * np.sin(np.arange(6000)[:, None] * [0.05, 0.06])
    readers = []
    for kind in ("wav", "flac", "ogg", "w64", "aiff", "caf", "mp3", "rf64", "au"):
        path = folder / f"sound.{kind}"
        soundfile.write(path, sound, 22050, format=kind.upper())
        readers.append(Reader(f"sound {kind}", lambda path: MonoFile(path).measure(1024, 256), [path]))
    return readers


def _sidecars(folder: Path) -> list[Reader]:
    import numpy as np
    import torch

    from modules.data.features import Augmented, ClipFiles

    chance, clips = np.random.default_rng(0), [ClipFiles(folder / f"{name}.wav") for name in ("ours", "theirs", "old")]
    ours, theirs, old = clips
    for files in clips:
        files.write_units(torch.from_numpy(chance.random((1, 8, 12), np.float32)))
        files.write_spec(torch.from_numpy(chance.random((9, 12), np.float32)))
        files.write_volume(chance.random(12))
        files.write_f0(chance.random(12), np.ones(12))
        files.write_augmented(Augmented(chance.random((12, 4), np.float32), chance.random(12), 1.5))
    np.save(theirs.f0, np.array([list(chance.random(12)), [1.0] * 12], dtype=object), allow_pickle=True)
    ragged = np.empty(2, dtype=object)
    ragged[:] = chance.random(12), np.ones(12)
    np.save(old.f0, ragged, allow_pickle=True)
    pair = np.empty(2, dtype=object)
    pair[:] = chance.random((12, 4)), -3.5
    np.save(theirs.aug_mel, pair, allow_pickle=True)
    torch.save(torch.rand(1, 8, 12), old.units, _use_new_zipfile_serialization=False)

    def of(path: Path) -> ClipFiles:
        return ClipFiles(path.with_name(path.name.partition(".wav")[0] + ".wav"))

    return [
        Reader("units", lambda path: of(path).read_units(), [ours.units, old.units]),
        Reader("F0", lambda path: of(path).read_f0(), [files.f0 for files in clips]),
        Reader("volume", lambda path: of(path).read_volume(), [ours.volume]),
        Reader("augmented mel", lambda path: of(path).read_augmented(), [ours.aug_mel, theirs.aug_mel]),
    ]


def _models(folder: Path) -> list[Reader]:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from cluster.centres import load_cluster_model, save_cluster_model
    from cluster.index_file import write_indexes
    from cluster.retrieval import build_index, load_feature_index
    from modules.training.checkpoint import load_base_weights, load_checkpoint, model_of, save_checkpoint, whole_number
    from modules.training.optimizer import AdamW
    from modules.training.optimizer_state import load_optimizer
    from modules.weights.safetensors_file import read_safetensors
    from modules.weights.weight_file import read_weight_file
    from tests.checkpoint_files import LAYOUTS, write_contentvec_checkpoint

    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = AdamW(network.parameters(), 1e-3)
    network(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    whole = {"model": network.state_dict(), "iteration": 3, "optimizer": optimizer.state_dict(), "learning_rate": 1e-4}
    save_checkpoint(folder / "G_1.pth", whole)
    torch.save(whole, folder / "G_2.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "G_1.pth") as stored, zipfile.ZipFile(folder / "G_3.pth", "w", 8) as packed:
        for record in stored.infolist():
            packed.writestr(record.filename, stored.read(record))

    def read_checkpoint(path: Path) -> None:
        content = load_checkpoint(path)
        load_base_weights(network, model_of(content, path), path)
        load_optimizer(optimizer, content.get("optimizer"), path)
        whole_number(content, "iteration", path)

    rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    write_indexes(folder / "a.pkl", [(0, build_index(rows)), (1, build_index(rows[:7]))])
    mapped = build_index(rows[:20])
    mapped.make_direct_map()
    write_indexes(folder / "b.pkl", [(3, mapped)])

    def search(path: Path) -> None:
        index = load_feature_index(path)
        for speaker in index.indexes:
            index.neighbours(torch.zeros(2, index.feature_size), speaker)

    centres = {name: rows[:4].copy() for name in ("alto", "tenor")}
    save_cluster_model(folder / "kmeans.pt", centres)
    torch.save({"alto": {"cluster_centers_": rows[:4]}}, folder / "kmeans_old.pt", _use_new_zipfile_serialization=False)
    save_file({"encoder.layers.0.self_attn.k_proj.weight": torch.rand(3, 4)}, folder / "a.safetensors", {"b": "c"})
    sizes = {"layers": 1, "width": 64, "convolutions": 4, "final": 4, "inner": 4, "positions": 4}
    weights = [write_contentvec_checkpoint(folder / f"{layout}.pt", layout=layout, **sizes) for layout in LAYOUTS]
    return [
        Reader("checkpoint", read_checkpoint, [folder / f"G_{number}.pth" for number in (1, 2, 3)]),
        Reader("weight file", lambda path: read_weight_file(path, "fairseq HuBERT"), weights),
        Reader("safetensors", read_safetensors, [folder / "a.safetensors"]),
        Reader("index", search, [folder / "a.pkl", folder / "b.pkl"]),
        Reader("centres", load_cluster_model, [folder / "kmeans.pt", folder / "kmeans_old.pt"]),
    ]


def _texts(folder: Path) -> list[Reader]:
    from modules.config import (
        Config,
        DiffusionConfig,
        load_config,
        load_diffusion_config,
        save_config,
        save_diffusion_config,
    )
    from modules.data.features import ClipFiles
    from modules.data.filelist import read_filelist
    from preparation import fingerprints
    from preparation.cutting import LEDGER, Ledger
    from tests.vocoder_files import PUBLISHED_MEL, SMALL_NETWORK
    from vdecoder.vocoder_config import load_vocoder_config

    save_config(Config(spk={"alto": 0, "tenor": 1}), folder / "config.json")
    save_diffusion_config(DiffusionConfig(), folder / "diffusion.yaml")
    (folder / "aliases.yaml").write_text("a: &a [1, 2]\nb: {<<: {c: *a}}\nspk: {x: 0}\n", encoding="utf-8")
    (folder / "vocoder.json").write_text(json.dumps(PUBLISHED_MEL | SMALL_NETWORK), encoding="utf-8")
    clip = ClipFiles(folder / "clip.wav")
    clip.wav.touch()
    (folder / "train.txt").write_text(f"{clip.wav}\n" * 3, encoding="utf-8")
    fingerprints.invalidate(clip, fingerprints.check(clip, {"f0": {"predictor": "pm"}}))
    entry = {"made_from": {"bytes": 3}, "clips": ["alto/a_0000.wav"], "done": True}
    (folder / LEDGER).write_text(json.dumps({"alto/a.wav": entry}), encoding="utf-8")
    return [
        Reader("config.json", load_config, [folder / "config.json"]),
        Reader("diffusion.yaml", load_diffusion_config, [folder / "diffusion.yaml", folder / "aliases.yaml"]),
        Reader("vocoder's config.json", load_vocoder_config, [folder / "vocoder.json"]),
        Reader("filelist", read_filelist, [folder / "train.txt"]),
        Reader("fingerprint", lambda path: fingerprints.check(clip, {"f0": {}}), [clip.fingerprint]),
        Reader("ledger", lambda path: Ledger(path.parent).speakers(), [folder / LEDGER]),
    ]


def _graphs(folder: Path) -> list[Reader]:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        from onnx import TensorProto, helper
    except ImportError:
        print("without onnx and onnxruntime no graphs are read")
        return []
    import torch

    from modules.onnx.session import open_session

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [float(n) for n in range(6)])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [value], [result], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.save(model, folder / "a.onnx")
    return [Reader("ONNX graph", lambda path: open_session(path, torch.device("cpu")), [folder / "a.onnx"])]


# -- damage -----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    """Change a file in one to three places; an archive mostly inside a record, and then pack it again."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        if data.startswith(b"PK\3\4") and chance.random() < 0.6:
            data = _within_archive(data, whole, chance)
        else:
            data = _change(data, whole, chance)
    return data


def _change(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    ways = [_cut, _flip, _flip, _splice, _repeat, _enlarge, _enlarge, _enlarge_text, _nest]
    ways += 3 * [_change_pickle] if b"\x80\x02" in data[:200] or b"\x80\x04" in data[:200] else []
    return chance.choice(ways)(data, whole, chance)


def _place(data: bytes, chance: random.Random) -> int:
    """Return a random position, half of the time among the first 120 bytes."""
    return chance.randrange(min(len(data), 120) if chance.random() < 0.5 else len(data)) if data else 0


def _cut(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _flip(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[_place(changed, chance)] ^= chance.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
    return bytes(changed)


def _splice(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(whole)
    at, start = _place(data, chance), _place(other, chance)
    end = start + chance.choice((4, 40, 400, len(other)))
    return data[:at] + other[start:end] + data[at + chance.choice((0, end - start)) :]


def _repeat(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    piece = data[at : at + chance.choice((1, 2, 8, 30))]
    return data[:at] + piece * chance.choice((2, 50, 5000)) + data[at:]


def _enlarge(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    """Replace a field of 1 to 8 bytes by an extreme or random number."""
    size, at = chance.choice((1, 2, 4, 4, 8, 8)), _place(data, chance)
    number = chance.choice((0, 1, 2, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1, 1 << 4 * size,
                            chance.randrange(1 << 8 * size)))  # fmt: skip
    return data[:at] + number.to_bytes(size, chance.choice(("little", "big"))) + data[at + size :]


def _enlarge_text(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    """Replace a number in digits by an extreme one, or by other text; without digits, as ``_enlarge``."""
    numbers = list(re.finditer(rb"\d+", data[:LARGEST]))
    if not numbers:
        return _enlarge(data, whole, chance)
    found = chance.choice(numbers)
    other = chance.choice((b"0", b"-1", b"1e999", b"99999999999999999999", b"9" * 5000, b"4294967296", b"1" + 12 * b"0",
                           b"NaN", b"2001-99-99", b"null", b'"a"', b"[]", b"{}", b"1:1:1", b"0x" + b"f" * 9000,
                           ))  # fmt: skip
    return data[: found.start()] + other + data[found.end() :]


def _nest(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    at, times = _place(data, chance), chance.choice((3, 300, 20_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(", b")"), (b")\x85", b""), (b"- ", b""),
                                      (b"&a [*a, ", b"]"), (b"<<: ", b"")))  # fmt: skip
    return data[:at] + opening * times + closing * chance.choice((0, times)) + data[at:]


NAMES = [b"cbuiltins\nbytearray\n", b"ctorch\nFloatTensor\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n",
         b"c_codecs\nencode\n", b"ccollections\nCounter\n", b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
         b"cnumpy\nndarray\n", b"cfaiss\nIndexIVFFlat\n", b"ctorch\nUntypedStorage\n", b"cbuiltins\nset\n",
         b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n", b"ctorch.nn.parameter\nParameter\n"]  # fmt: skip
WHOLE_NUMBERS = [0, 1, -1, 2**31 - 1, 2**33, 2**62, 10**12, 2**300]


def _change_pickle(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    """Change one opcode of the (first) pickle in ``data``, or put others before it."""
    start = min((at for mark in (b"\x80\x02", b"\x80\x04") if (at := data.find(mark)) >= 0), default=0)
    try:
        opcodes = [(code.name, argument, start + at) for code, argument, at in pickletools.genops(data[start:])]
    except ValueError:
        return _flip(data, whole, chance)
    if len(opcodes) < 2:
        return _repeat(data, whole, chance)
    index = chance.randrange(len(opcodes) - 1)
    name, argument, at = opcodes[index]
    end = opcodes[index + 1][2]
    here, gets = data[at:end], [i for i, one in enumerate(opcodes[:-1]) if "GET" in one[0]]
    way = chance.randrange(9)
    if way == 0 and "PUT" in name:
        return data[:at] + b"r" + struct.pack("<I", chance.choice((1000, 1 << 27, (1 << 32) - 1))) + data[end:]
    if way == 1 and gets:
        one = chance.choice(gets)
        get = data[opcodes[one][2] : opcodes[one + 1][2]]
        return data[:at] + chance.choice((b"", b"(")) + get * chance.choice((1, 30, 3000)) + data[at:]
    if way == 2 and isinstance(argument, int):
        number = chance.choice(WHOLE_NUMBERS)
        size = number.bit_length() // 8 + 1
        return data[:at] + b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True) + data[end:]
    if way == 3 and name in ("GLOBAL", "STACK_GLOBAL"):
        return data[:at] + (b"00" if name == "STACK_GLOBAL" else b"") + chance.choice(NAMES) + data[end:]
    if way == 4:
        number = chance.choice((1, 10**9)).to_bytes(4, "little")
        return data[:at] + chance.choice(NAMES) + b"J" + number + b"\x85R" + chance.choice((b"", b"0")) + data[at:]
    if way == 5:
        code = chance.choice((b"\x85", b"]", b"}", b")", b"2", b"0", b"(", b"t", b"\x8f", b"N"))
        return data[:at] + code * chance.choice((1, 150, 10_000)) + data[at:]
    if way == 6:
        state = chance.choice((b"}X\x05\x00\x00\x00itemsK\x01s", b"}X\x03\x00\x00\x00getNs", b"}U\x02toNs", b"N"))
        return data[:at] + state + b"b" + data[at:]
    if way == 7:
        return data[:at] + data[end:]
    return data[:at] + here * chance.choice((2, 20, 500)) + data[end:]


def _within_archive(data: bytes, whole: list[bytes], chance: random.Random) -> bytes:
    """Change a record, most often the pickle, and pack the archive again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    except Exception:  # an earlier change damaged the archive
        return _change(data, whole, chance)
    pickles = [i for i, (name, _) in enumerate(records) if name.endswith("data.pkl")]
    index = chance.choice(pickles if pickles and chance.random() < 0.8 else range(len(records)))
    name, content = records[index]
    if chance.random() < 0.1:
        records.insert(index, (chance.choice((name, name.upper(), name.replace("/", "//"), "x" + name)), content))
    elif chance.random() < 0.1:
        content = bytes(chance.choice((1000, 10**6)))
    else:
        content = _change_pickle(content, whole, chance) if index in pickles else _change(content, whole, chance)
    records[index] = (records[index][0], content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for one, bytes_of_it in records:
            archive.writestr(one, bytes_of_it)
    return packed.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
