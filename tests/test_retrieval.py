"""Retrieval equals an exhaustive search; its file has the published format, and reading it runs no code."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from cluster.index_file import read_indexes, write_indexes
from cluster.retrieval import _recall, build_index, load_feature_index
from modules.console import UserError
from tests.bounded import bounded

SIZE = 12
ALL = 10**6  # lists: more than any index has


def features(count: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def feature_index(folder: Path, *sets: np.ndarray, nprobe: int = ALL):
    """An index of speakers 0, 1, ..., written and read."""
    write_indexes(folder / "a.pkl", ((speaker, build_index(rows)) for speaker, rows in enumerate(sets)))
    return load_feature_index(folder / "a.pkl", nprobe)


def brute_force(rows: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The published formula, in float64."""
    distances = ((units[:, None].astype(np.float64) - rows[None]) ** 2).sum(axis=2)
    mixed = np.empty(units.shape)
    for frame, row in enumerate(distances):
        nearest = np.argsort(row)[:8]
        weights = (1 / row[nearest]) ** 2
        mixed[frame] = (weights / weights.sum()) @ rows[nearest]
    return mixed


@pytest.mark.parametrize("count", [8, 30, 2000])
def test_neighbours_equal_a_search_by_brute_force_when_all_lists_are_searched(tmp_path, count):
    index = feature_index(tmp_path, features(50, seed=9), features(count))
    units = features(70, seed=1)
    found = index.neighbours(torch.from_numpy(units), 1)
    np.testing.assert_allclose(found.numpy(), brute_force(features(count), units), rtol=1e-4, atol=1e-5)
    assert list(index.indexes) == [0, 1] and index.feature_size == SIZE


def test_fewer_than_eight_features_share_the_weight(tmp_path):
    units = features(20, seed=1)
    for count in (1, 3):
        found = feature_index(tmp_path, features(count)).neighbours(torch.from_numpy(units), 0)
        np.testing.assert_allclose(found.numpy(), brute_force(features(count), units), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nprobe", [1, ALL])
def test_a_unit_that_is_a_training_feature_is_that_feature(tmp_path, nprobe):
    rows = np.concatenate([features(300), features(5)])  # five of them twice
    found = feature_index(tmp_path, rows, nprobe=nprobe).neighbours(torch.from_numpy(rows), 0)
    np.testing.assert_array_equal(found.numpy(), rows)


def test_a_hair_beside_a_training_feature_gives_that_feature_too(tmp_path):
    rows = features(300)
    found = feature_index(tmp_path, rows).neighbours(torch.from_numpy(rows + np.float32(1e-12)), 0)
    np.testing.assert_allclose(found.numpy(), rows, atol=1e-6)
    tiny = rows * np.float32(1e-14)  # squared distances that float32 rounds away or whose square it cannot hold
    assert torch.isfinite(feature_index(tmp_path, tiny).neighbours(torch.from_numpy(tiny[::-1] * 2), 0)).all()


def test_units_whose_lists_are_empty_stay_as_they_are(tmp_path):
    index = faiss.index_factory(SIZE, "IVF4,Flat")
    index.train(features(160))
    write_indexes(tmp_path / "a.pkl", [(0, index)])
    units = torch.from_numpy(features(6, seed=2))
    assert torch.equal(load_feature_index(tmp_path / "a.pkl").neighbours(units, 0), units)


def test_searching_more_lists_never_misses_more(tmp_path):
    """The default looks into one list; what it misses lies farther, never nearer."""
    rows, units = features(3000), features(200, seed=1)
    index = feature_index(tmp_path, rows)
    farthest = []
    for nprobe in (1, 4, ALL):
        inner = load_feature_index(tmp_path / "a.pkl", nprobe).indexes[0]
        farthest.append(inner.search(units, 8)[0].astype(np.float64).sum())
        assert inner.nprobe == min(nprobe, index.indexes[0].nlist)
    assert farthest[0] > farthest[1] > farthest[2]


@pytest.mark.parametrize(
    ("found", "nearest", "recall"),
    [
        ([[0, 7]], [[7, 0]], 1.0),
        ([[5, -1]], [[0, -1]], 0.0),
        ([[3, 1], [2, 9]], [[1, 2], [9, 2]], 0.75),
        ([[-1, -1]], [[-1, -1]], 1.0),
    ],
)
def test_recall_is_the_share_of_the_nearest_that_are_found(found, nearest, recall):
    assert _recall(np.array(found), np.array(nearest)) == recall


def test_automatic_nprobe_finds_95_percent_with_as_few_lists_as_it_can(tmp_path, caplog):
    caplog.set_level("INFO")
    rows, units = features(4000), features(300, seed=1)
    index = feature_index(tmp_path, rows, nprobe=None)
    index.neighbours(torch.from_numpy(units), 0)
    chosen, lists = index.indexes[0].nprobe, index.indexes[0].nlist
    assert 1 < chosen < lists and f"nprobe {chosen} of {lists} lists finds 9" in caplog.text

    def recall(nprobe):
        nearest = np.argsort(((units[:, None] - rows[None]) ** 2).sum(axis=2), axis=1)[:, :8]
        index.indexes[0].nprobe = nprobe
        found = index.indexes[0].search(units, 8)[1]
        return np.mean([len(set(a) & set(b)) / 8 for a, b in zip(nearest, found, strict=True)])

    assert recall(chosen) > 0.93 and recall(chosen // 2) < 0.96
    index.neighbours(torch.from_numpy(units[:5]), 0)
    assert caplog.text.count("nprobe") == 1, "it is chosen once"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_and_shape_are_those_of_the_units(tmp_path, dtype):
    index = feature_index(tmp_path, features(30))
    units = torch.from_numpy(features(5, seed=1)).to(dtype)
    assert index.neighbours(units, 0).dtype == dtype
    assert index.neighbours(units.T.contiguous().T, 0).shape == units.shape
    assert index.neighbours(units[:0], 0).shape == (0, SIZE)


def test_what_the_index_lacks_is_named(tmp_path):
    index = feature_index(tmp_path, features(30), features(30))
    with pytest.raises(UserError, match="a.pkl holds no features of speaker 2, only of 0, 1"):
        index.neighbours(torch.zeros(3, SIZE), 2)
    with pytest.raises(UserError, match=f"a.pkl holds features of size {SIZE}, the speech encoder gives 7"):
        index.neighbours(torch.zeros(3, 7), 0)
    with pytest.raises(UserError, match="nprobe is 0"):
        load_feature_index(tmp_path / "a.pkl", 0)
    with pytest.raises(UserError, match="there is no .*b.pkl; 'python train_index.py' makes it"):
        load_feature_index(tmp_path / "b.pkl")


# -- the file ---------------------------------------------------------------------------------------------------------


def test_our_file_is_the_pickle_of_faiss_indexes_that_others_read(tmp_path):
    feature_index(tmp_path, features(500), features(40, seed=1))
    with open(tmp_path / "a.pkl", "rb") as file:
        indexes = pickle.load(file)
    assert list(indexes) == [0, 1]
    for index, rows in zip(indexes.values(), (features(500), features(40, seed=1)), strict=True):
        assert type(index) is faiss.IndexIVFFlat and index.nprobe == 1 and index.metric_type == faiss.METRIC_L2
        np.testing.assert_array_equal(index.reconstruct_n(0, index.ntotal), rows)
    assert b"swigfaiss" not in (tmp_path / "a.pkl").read_bytes(), "the name of one build's module"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", [b"faiss.swigfaiss", b"faiss.swigfaiss_avx2"])
def test_files_of_others_are_read(tmp_path, protocol, module):
    index = build_index(features(200))
    pickled = pickle.dumps({3: index}, protocol)
    if module != b"faiss.swigfaiss":
        pickled = renamed(pickled, module)
    (tmp_path / "a.pkl").write_bytes(pickled)
    (read,) = read_indexes(tmp_path / "a.pkl").values()
    np.testing.assert_array_equal(read.reconstruct_n(0, 200), features(200))


def renamed(pickled: bytes, module: bytes) -> bytes:
    """The pickle as a faiss whose compiled part is called otherwise writes it, in its first frame at least."""
    short = pickle.SHORT_BINUNICODE
    old = b"faiss.swigfaiss"
    pickled = pickled.replace(pickle.GLOBAL + old + b"\n", pickle.GLOBAL + module + b"\n")
    if short + bytes([len(old)]) + old in pickled:
        pickled = pickled.replace(short + bytes([len(old)]) + old, short + bytes([len(module)]) + module)
        at = pickled.index(pickle.FRAME) + 1
        length = int.from_bytes(pickled[at : at + 8], "little") + len(module) - len(old)
        pickled = pickled[:at] + length.to_bytes(8, "little") + pickled[at + 8 :]
    return pickled


def test_sparse_lists_and_a_direct_map_are_read(tmp_path):
    index = faiss.index_factory(SIZE, "IVF40,Flat")
    index.cp.min_points_per_centroid = 1
    index.train(features(200))
    index.add(features(3))
    index.make_direct_map()
    write_indexes(tmp_path / "a.pkl", [(0, index)])
    np.testing.assert_array_equal(read_indexes(tmp_path / "a.pkl")[0].reconstruct_n(0, 3), features(3))


def test_an_index_has_its_speakers_names_and_is_refused_for_other_models(tmp_path):
    names = {"名 前": 0, "bob": 3}
    write_indexes(tmp_path / "a.pkl", [(0, build_index(features(40))), (3, build_index(features(40)))], names)
    index = load_feature_index(tmp_path / "a.pkl")
    index.check_speakers(names | {"carol": 4})
    index.check_speakers({"0": 0, "1": 1, "2": 2, "3": 3})  # a model without names
    with pytest.raises(UserError, match="a.pkl is for other voices: its speaker 3 is 'bob', the model's is 'carol'"):
        index.check_speakers({"名 前": 0, "carol": 3})
    with open(tmp_path / "a.pkl", "rb") as file:  # as the published program reads it
        assert sorted(pickle.load(file)) == [0, 3]


@pytest.mark.parametrize("names", [b'{"a": 0', b'["a"]', b'{"a": "0"}', b"[" * 100_000, b"\xff"])
def test_damaged_names_are_refused(tmp_path, names):
    write_indexes(tmp_path / "a.pkl", [(0, build_index(features(40)))])
    data = (tmp_path / "a.pkl").read_bytes()
    for length in (len(names), 2**32 - 1):
        (tmp_path / "a.pkl").write_bytes(data + names + struct.pack("<I8s", length, b"speakers"))
        with pytest.raises(UserError, match="a.pkl is damaged: its speakers' names cannot be read"):
            load_feature_index(tmp_path / "a.pkl")


def test_an_index_without_names_serves_any_model(tmp_path):
    with open(tmp_path / "a.pkl", "wb") as file:  # as the published program writes it
        pickle.dump({0: build_index(features(40))}, file)
    load_feature_index(tmp_path / "a.pkl").check_speakers({"alto": 0})


def test_a_write_that_fails_leaves_the_former_file(tmp_path, no_room):
    feature_index(tmp_path, features(100))
    former = (tmp_path / "a.pkl").read_bytes()
    with no_room(), pytest.raises(UserError, match="a.pkl cannot be written"):
        write_indexes(tmp_path / "a.pkl", [(0, build_index(features(900)))])
    assert (tmp_path / "a.pkl").read_bytes() == former and len(list(tmp_path.iterdir())) == 1


# -- files that are not what they should be ---------------------------------------------------------------------------


class Runs:
    """Calls ``function(*arguments)`` in an ordinary reader, and sets ``state`` on what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """Makes the instance callable, so that it can be in place of a function."""


class Trick(faiss.IndexIVFFlat):
    """A subclass of the one class that is allowed."""

    def __reduce__(self):
        return (Trick, (), {"this": b""})


def os_module() -> Runs:
    return Runs(__import__, "os")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "trap",
    [
        Runs(os.system, "touch ran"),
        Runs(subprocess.check_call, ["touch", "ran"]),
        Runs(eval, "open('ran', 'w')"),
        Runs(exec, "open('ran', 'w')"),
        Runs(getattr, os_module(), "system"),
        Runs(Runs(getattr, os_module(), "system"), "touch ran"),
        Runs(open, "ran", "w"),
        Runs(faiss.read_index, "ran"),
        Runs(faiss.write_index, faiss.IndexFlatL2, "ran"),
        Runs(faiss.deserialize_index, np.zeros(4, np.uint8)),
        Runs(faiss.FileIOWriter, "ran"),
        Runs(faiss.OnDiskInvertedLists, 1, 4, "ran"),
        Runs(np.fromfile, "ran"),
        Runs(pickle.loads, pickle.dumps(Runs(os.system, "touch ran"))),
        Runs(Trick, state={"this": b""}),
    ],
    ids=lambda trap: getattr(trap.parts[0], "__name__", "chain"),
)
def test_a_malicious_file_runs_nothing(tmp_path, monkeypatch, protocol, trap):
    monkeypatch.chdir(tmp_path)
    for position, saved in {"whole": trap, "value": {0: trap}, "later": {0: 1, "x": [trap]}, "key": {trap: 0}}.items():
        Path("a.pkl").write_bytes(pickle.dumps(saved, protocol))
        with pytest.raises(UserError, match="a.pkl is refused: its pickle uses"):
            read_indexes("a.pkl")
        assert not Path("ran").exists(), position


def test_the_traps_of_these_tests_would_run_in_an_ordinary_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps({0: Runs(os.system, "touch ran")}))
    assert Path("ran").exists()


GLOBAL = b"cfaiss.swigfaiss\nIndexIVFFlat\n"


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x02}K\x00" + GLOBAL + b")\x81s.",  # an index without a state
        b"\x80\x02}K\x00" + GLOBAL + b"s.",  # the class itself
        b"\x80\x02}K\x00" + GLOBAL + b"}b" + b"s.",  # a state for the class
        b"\x80\x02}K\x00" + GLOBAL + b"N}X\x0c\x00\x00\x00__setstate__K\x01s\x86bs.",  # for its slots
        b"\x80\x02}K\x00" + GLOBAL + b")\x81}X\x04\x00\x00\x00thisK\x01sbs.",  # a number for bytes
        b"\x80\x02}K\x00" + GLOBAL + b")\x81}X\x04\x00\x00\x00datac__main__\nx\nsbs.",
        b"\x80\x02}K\x00" + GLOBAL + b"K\x01\x85Rs.",  # called with an argument
        b"\x80\x02}K\x00cfaiss.swigfaiss\nIndexIVFFlat.__init__.__globals__\n)\x81s.",
        b"\x80\x04}K\x00\x8c\x0ffaiss.swigfaiss\x8c\x1dIndexIVFFlat.__init__.__code__\x93s.",
        b"\x80\x02]K\x00a.",
        b"\x80\x02}.",
        b"\x80\x02}K\x00K\x01s.",
        b"\x80\x02}X\x01\x00\x00\x00a" + GLOBAL + b")\x81s.",
        b"\x80\x02P1\n.",
        b"<!DOCTYPE html>",
        b"",
    ],
)
def test_a_file_that_is_no_pickle_of_indexes_is_refused(tmp_path, payload):
    (tmp_path / "a.pkl").write_bytes(payload)
    with pytest.raises(UserError, match="a.pkl"):
        read_indexes(tmp_path / "a.pkl")


def as_pickle(data: bytes) -> bytes:
    """Write an index file of speaker 0 with these bytes in faiss's format."""
    size = len(data).to_bytes(8, "little")
    return b"\x80\x04}K\x00" + GLOBAL + b")\x81}\x8c\x04this\x8e" + size + data + b"sbs."


def other_indexes() -> dict[str, faiss.Index]:
    flat = faiss.IndexFlatL2(SIZE)
    quantized = faiss.index_factory(SIZE, "IVF2,SQ8")
    product = faiss.index_factory(SIZE, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    for index in (quantized, product):
        index.train(features(100))
    return {"flat": flat, "quantized": quantized, "product": product, "graph": faiss.IndexHNSWFlat(SIZE, 4)}


@pytest.mark.parametrize("kind", ["flat", "quantized", "product", "graph"])
def test_another_index_in_the_place_of_ours_is_refused(tmp_path, kind):
    (tmp_path / "a.pkl").write_bytes(as_pickle(faiss.serialize_index(other_indexes()[kind]).tobytes()))
    with pytest.raises(UserError, match="speaker 0: the index is damaged or of another kind"):
        read_indexes(tmp_path / "a.pkl")


def test_lists_in_a_file_of_their_own_are_refused_and_the_file_not_opened(tmp_path):
    """faiss would open, for reading and writing, whatever file such an index names."""
    index = build_index(features(100))
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(tmp_path / "named"))
    index.replace_invlists(lists)
    data = faiss.serialize_index(index).tobytes()
    (tmp_path / "named").unlink(missing_ok=True)
    assert b"ilod" in data and b"named" in data
    (tmp_path / "a.pkl").write_bytes(as_pickle(data))
    with pytest.raises(UserError, match="the index is damaged or of another kind"):
        read_indexes(tmp_path / "a.pkl")


def test_damage_anywhere_is_refused_or_harmless(tmp_path):
    """Every byte before the vectors is turned; what is still read can be searched."""
    index = build_index(features(80))
    data = faiss.serialize_index(index).tobytes()
    vectors = 80 * (4 * SIZE + 8)
    for at in range(len(data) - vectors):
        for turned in (0xFF, 0x01):
            changed = data[:at] + bytes([data[at] ^ turned]) + data[at + 1 :]
            (tmp_path / "a.pkl").write_bytes(as_pickle(changed))
            try:
                read = load_feature_index(tmp_path / "a.pkl")
            except UserError as error:
                assert "speaker 0: the index is damaged or of another kind" in str(error)
            else:
                read.neighbours(torch.zeros(2, SIZE), 0)
    for length in range(0, len(data), 37):
        (tmp_path / "a.pkl").write_bytes(as_pickle(data[:length]))
        with pytest.raises(UserError, match="the index is damaged"):
            read_indexes(tmp_path / "a.pkl")


def test_a_truncated_file_is_called_so(tmp_path):
    feature_index(tmp_path, features(60))
    data = (tmp_path / "a.pkl").read_bytes()
    for length in range(0, len(data), 101):
        (tmp_path / "a.pkl").write_bytes(data[:length])
        with pytest.raises(UserError, match=f"a.pkl looks truncated, its size is {length:,} bytes"):
            read_indexes(tmp_path / "a.pkl")


def test_indexes_of_two_feature_sizes_are_refused(tmp_path):
    with pytest.raises(UserError, match="mixes features of several sizes"):
        write_indexes(tmp_path / "a.pkl", [(0, build_index(features(40))), (1, build_index(features(40, size=5)))])
    assert not list(tmp_path.iterdir())


def with_direct_map(kind: int, entries: bytes) -> bytes:
    """Make an index of 8 vectors with this direct map."""
    data = faiss.serialize_index(build_index(features(8))).tobytes()
    at = data.index(b"ilar")
    return data[: at - 9] + bytes([kind]) + (len(entries) // 8).to_bytes(8, "little") + entries + data[at:]


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (2, b""),  # a hash table: what follows would be its size, six thousand million
        (2, bytes(64)),
        (1, bytes(56)),
        (1, bytes(56) + (8).to_bytes(8, "little")),  # the ninth vector of eight
        (1, b"\xff" * 64),
        (0, bytes(64)),
    ],
)
def test_a_direct_map_that_is_none_of_these_vectors_is_refused(tmp_path, kind, entries):
    (tmp_path / "a.pkl").write_bytes(as_pickle(with_direct_map(kind, entries)))
    assert "the index is damaged or of another kind" in bounded(read_indexes, tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(as_pickle(with_direct_map(1, b"".join(i.to_bytes(8, "little") for i in range(8)))))
    assert read_indexes(tmp_path / "a.pkl")[0].ntotal == 8


STATE = b")\x81}X\x04\x00\x00\x00this"
BYTES = 2 << 20
SAME_TEXT = b"X" + BYTES.to_bytes(4, "little") + b"a" * BYTES + b"q\x01X\x06\x00\x00\x00latin1q\x02"


@pytest.mark.parametrize(
    "payload",
    [
        b"K\x00r\xff\xff\xff\x0f.",  # a table of objects of two gigabytes
        b"}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",  # a key that nests so deep that its hash overflows the stack
        b"\x8e\x00\x00\x00\x00\x01\x00\x00\x00x.",  # bytes of four gigabytes
        b"c_codecs\nencode\nq\x00" + SAME_TEXT + b"h\x00h\x01h\x02\x86R" * 1000 + b".",
    ],
)
def test_a_small_file_takes_little_memory_whatever_its_pickle_does(tmp_path, payload):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + payload)
    assert "a.pkl" in bounded(read_indexes, tmp_path / "a.pkl")


def test_one_index_for_many_speakers_is_refused(tmp_path):
    data = faiss.serialize_index(build_index(features(5000))).tobytes()
    first = GLOBAL + STATE + b"B" + len(data).to_bytes(4, "little") + data + b"sbq\x00"
    speakers = b"".join(b"M" + number.to_bytes(2, "little") + b"h\x00s" for number in range(1, 1000))
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}K\x00" + first + b"s" + speakers + b".")
    assert "several speakers the same index" in bounded(read_indexes, tmp_path / "a.pkl", mib=16)
