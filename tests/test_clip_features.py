"""Sidecar files: names, formats, refusals, and alignment in time."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules import atomic_file
from modules.console import UserError
from modules.data import features
from modules.data.features import Augmented, Clip, ClipFiles, align, common_frames, find_clips, frames, stretch_units
from tests.bounded import bounded


@pytest.fixture
def files(tmp_path):
    return ClipFiles(tmp_path / "a.wav.take 1.wav")


def test_names_are_the_published_ones_and_only_the_last_suffix_gives_way():
    files = ClipFiles(Path("dataset.wav/44k/x.wav.b.wav"))
    names = ("units", "f0", "spec", "volume", "mel", "aug_mel", "aug_volume", "aug_shift")
    names = {name: getattr(files, name).as_posix() for name in names}
    assert names == {
        "units": "dataset.wav/44k/x.wav.b.wav.soft.pt",
        "f0": "dataset.wav/44k/x.wav.b.wav.f0.npy",
        "spec": "dataset.wav/44k/x.wav.b.spec.pt",
        "volume": "dataset.wav/44k/x.wav.b.wav.vol.npy",
        "mel": "dataset.wav/44k/x.wav.b.wav.mel.npy",
        "aug_mel": "dataset.wav/44k/x.wav.b.wav.aug_mel.npy",
        "aug_volume": "dataset.wav/44k/x.wav.b.wav.aug_vol.npy",
        "aug_shift": "dataset.wav/44k/x.wav.b.wav.aug_shift.npy",
    }
    assert files.paths("augmented") == (files.aug_mel, files.aug_volume)
    assert files.paths("volume") == (files.volume,)


def test_what_is_written_is_read_back(files):
    units, spec = torch.randn(1, 5, 7), torch.rand(9, 11)
    f0, uv, volume = np.linspace(100, 200, 11), np.arange(11) % 2, np.geomspace(1e-6, 1, 11)
    files.write_units(units), files.write_spec(spec), files.write_f0(f0, uv), files.write_volume(volume)
    torch.testing.assert_close(files.read_units(), units, rtol=0, atol=0)
    torch.testing.assert_close(files.read_spec(), spec, rtol=0, atol=0)
    np.testing.assert_array_equal(files.read_f0(), np.float32([f0, uv]))
    np.testing.assert_array_equal(files.read_volume(), np.float32(volume))


def test_f0_is_a_plain_array_of_two_rows(files):
    files.write_f0(np.ones(4), np.zeros(4))
    array = np.load(files.f0, allow_pickle=False)
    assert array.shape == (2, 4) and array.dtype == np.float32


@pytest.mark.parametrize("lengths", [(6, 6), (6, 5)])
def test_the_pickled_f0_of_the_original_is_read(files, lengths):
    rows = [np.linspace(90, 99, lengths[0]), np.ones(lengths[1])]
    packed = np.array(rows, dtype=object) if lengths[0] == lengths[1] else np.empty(2, dtype=object)
    packed[:] = rows
    np.save(files.f0, packed, allow_pickle=True)
    if lengths[0] == lengths[1]:
        np.testing.assert_array_equal(files.read_f0(), np.float32(rows))
    else:
        with pytest.raises(UserError, match="f0.npy"):
            files.read_f0()


def test_the_same_values_give_the_same_bytes(files, tmp_path):
    units = torch.randn(1, 5, 7)
    other = ClipFiles(tmp_path / "other.wav")
    files.write_units(units), other.write_units(units)
    assert files.units.read_bytes() == other.units.read_bytes()


@pytest.mark.parametrize("name", ["units", "f0", "spec", "volume", "mel"])
@pytest.mark.parametrize(("free", "words"), [(0, "the disk is full"), (1 << 30, "")])
def test_a_write_that_finds_no_room_names_the_sidecar_file(files, monkeypatch, no_room, name, free, words):
    values = {"units": [torch.rand(1, 9, 900)], "f0": [np.ones(9000), np.ones(9000)]}
    values |= {"spec": [torch.rand(9, 900)], "volume": [np.ones(9000)], "mel": [np.ones((90, 100))]}
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(UserError) as caught, no_room():
        getattr(files, f"write_{name}")(*values[name])
    assert str(caught.value).startswith(f"{getattr(files, name)} cannot be written: {words}")
    assert ".partial" not in str(caught.value) and list(files.wav.parent.iterdir()) == []


def test_a_file_in_the_place_of_the_clips_folder_is_named(tmp_path):
    (tmp_path / "alto").touch()
    with pytest.raises(UserError, match=r"a\.wav\.vol\.npy cannot be written: .*alto is a file"):
        ClipFiles(tmp_path / "alto" / "a.wav").write_volume(np.ones(3))


def test_a_slice_of_a_large_tensor_is_stored_alone(files):
    files.write_units(torch.randn(1, 4, 100_000)[..., :3])
    assert files.units.stat().st_size < 5000


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_never_written(files, value):
    files.write_volume(np.ones(3))
    with pytest.raises(UserError, match="finite"):
        files.write_volume(np.array([1, value]))
    with pytest.raises(UserError, match="finite"):
        files.write_spec(torch.tensor([[1, value]]))
    np.testing.assert_array_equal(files.read_volume(), np.ones(3))
    assert [path.name for path in files.wav.parent.iterdir()] == [files.volume.name]


@pytest.mark.parametrize("name", ["units", "f0", "spec", "volume", "mel"])
@pytest.mark.parametrize("content", [None, b"", b"no such format", b"\x93NUMPY\x01\x00", b"PK\x03\x04cut"])
def test_a_missing_or_damaged_sidecar_file_is_an_error_that_names_it(files, name, content):
    path = getattr(files, name)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        getattr(files, f"read_{name}")()
    assert str(path) in str(caught.value)


def test_a_sidecar_file_of_another_shape_is_refused(files):
    torch.save(torch.zeros(3), files.units)
    torch.save({"a": 1}, files.spec)
    np.save(files.f0, np.zeros((3, 4)))
    np.save(files.volume, np.zeros((3, 4)))
    np.save(files.mel, np.zeros(3))
    for read in (files.read_units, files.read_spec, files.read_f0, files.read_volume, files.read_mel):
        with pytest.raises(UserError, match="preprocess_hubert_f0.py"):
            read()


def test_units_and_mels_of_another_network_are_refused(files):
    files.write_units(torch.zeros(1, 5, 7)), files.write_mel(np.zeros((7, 80)))
    assert files.read_units(5).shape == (1, 5, 7) and files.read_mel(80).shape == (7, 80)
    with pytest.raises(UserError, match=r"soft\.pt has 5 features and the config's speech encoder gives 8"):
        files.read_units(8)
    with pytest.raises(UserError, match=r"mel\.npy has 80 bins and the vocoder 128; run .*--use_diff"):
        files.read_mel(128)


# -- the augmented sidecar files --------------------------------------------------------------------------------------


def augmented(value, frames=7):
    return Augmented(np.full((frames, 4), value), np.full(frames, value), float(value))


def holds(files, value):
    read = files.read_augmented()
    return (read.mel == value).all() and (read.volume == value).all() and read.shift == value


def test_the_augmented_sidecar_files_are_the_published_pair_and_a_volume(files):
    files.write_augmented(augmented(-2.5))
    mel, shift = np.load(files.aug_mel, allow_pickle=True)  # as the original's train_diff.py reads it
    assert (type(mel), mel.shape, mel.dtype.str, mel.flags.writeable) == (np.ndarray, (7, 4), "<f4", True)
    assert (type(shift), shift) == (float, -2.5) and (mel == -2.5).all()
    assert np.load(files.aug_mel, allow_pickle=True).shape == (2,)
    assert np.load(files.aug_volume, allow_pickle=False).dtype == np.float32
    assert holds(files, -2.5) and len(list(files.wav.parent.iterdir())) == 2


def test_the_published_pair_names_nothing_that_numpy_1_23_lacks(files):
    files.write_augmented(augmented(1))
    named = set()

    class Listing(pickle.Unpickler):
        def find_class(self, module, name):
            named.add((module, name))
            return super().find_class(module, name)

    with open(files.aug_mel, "rb") as file:
        np.lib.format.read_magic(file), np.lib.format.read_array_header_1_0(file)
        Listing(file).load()
    assert named == {("numpy", "ndarray"), ("numpy", "dtype")}


def write_as_before(files, value):
    """Write three plain arrays, as earlier versions of this program did."""
    for path, array in zip(
        (files.aug_mel, files.aug_volume, files.aug_shift), vars(augmented(value)).values(), strict=True
    ):
        np.save(path, np.float32(array))


def test_the_three_plain_arrays_of_earlier_versions_are_read_and_written_over(files):
    write_as_before(files, 4)
    assert holds(files, 4)
    files.write_augmented(augmented(5))
    assert holds(files, 5) and not files.aug_shift.exists()


def test_the_pickled_pair_of_the_original_is_read_and_written_over(files):
    pair = np.empty(2, dtype=object)
    pair[:] = np.float32(np.random.default_rng(0).random((7, 4))), 1.25
    np.save(files.aug_mel, pair, allow_pickle=True)
    np.save(files.aug_volume, np.ones(7, np.float32))
    read = files.read_augmented()
    np.testing.assert_array_equal(read.mel, pair[0])
    assert read.shift == 1.25 and read.volume.shape == (7,)
    files.write_augmented(augmented(3))
    assert holds(files, 3)


@pytest.mark.parametrize("former", [None, "plain", "published"])
@pytest.mark.parametrize("step", range(4))
def test_an_interrupted_write_leaves_the_former_pair_the_new_one_or_a_named_gap(files, monkeypatch, former, step):
    if former:
        write_as_before(files, 1) if former == "plain" else files.write_augmented(augmented(1))
    done = []

    def die_at(call):
        def replacement(*arguments, **named):
            done.append(call)
            if len(done) > step:
                raise KeyboardInterrupt
            return call(*arguments, **named)

        return replacement

    monkeypatch.setattr(np, "save", die_at(np.save))
    monkeypatch.setattr(features, "write_mel_and_shift", die_at(features.write_mel_and_shift))
    monkeypatch.setattr(atomic_file.os, "replace", die_at(atomic_file.os.replace))
    with pytest.raises(KeyboardInterrupt):
        files.write_augmented(augmented(2))
    monkeypatch.undo()
    if step < 2 and former:
        assert holds(files, 1)
    elif step < 2:
        assert list(files.wav.parent.iterdir()) == []
    else:
        with pytest.raises(UserError, match=r"there is no .*; 'python preprocess_hubert_f0.py --use_diff' makes it"):
            files.read_augmented()
    files.write_augmented(augmented(3))
    assert holds(files, 3) and len(list(files.wav.parent.iterdir())) == 2


def test_augmented_sidecar_files_that_are_not_finite_are_refused_whole(files):
    files.write_augmented(augmented(1))
    with pytest.raises(UserError, match=r"aug_mel\.npy would hold values that are not finite"):
        files.write_augmented(Augmented(np.full((7, 4), np.nan), np.ones(7), 0.0))
    assert holds(files, 1)


def test_clips_are_found_in_order_without_hidden_and_foreign_files(tmp_path):
    others = ("b/.x.wav", "b/x.mp3", "b/x.wav.soft.pt", ".git/x.wav", "x.wav")
    for name in ("b/2.wav", "b/10.wav", "声 a/x.wav", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_clips(tmp_path)
    assert [(speaker, [clip.name for clip in clips]) for speaker, clips in found.items()] == [
        ("b", ["10.wav", "2.wav"]),
        ("声 a", ["x.wav"]),
    ]


def test_a_missing_or_empty_data_set_names_the_stage_before(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match="resample.py"):
            find_clips(folder)


# -- stretching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "mode", "expected"),
    [
        (5, 9, "nearest", [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (5, 9, "left", [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (5, 3, "nearest", [0, 1, 3]),
        (5, 3, "left", [0, 1, 2]),
        (10, 4, "nearest", [0, 2, 5, 7]),
        (10, 4, "left", [0, 1, 2, 3]),
        (5, 9, "linear", [0, 0.3333, 0.8889, 1.4444, 2, 2.5556, 3.1111, 3.6667, 4]),
    ],
)
def test_stretching_gives_the_original_values(source, target, mode, expected):
    stretched = stretch_units(torch.arange(source, dtype=torch.float32)[None], target, mode)
    torch.testing.assert_close(stretched, torch.tensor([expected], dtype=torch.float32), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(source=st.integers(1, 300), target=st.integers(1, 600))
def test_the_left_mode_repeats_each_frame_until_the_next_is_due(source, target):
    position, expected = 0, []
    boundaries = torch.arange(source + 1) * target / source
    for frame in range(target):
        position += bool(frame >= boundaries[position + 1])
        expected.append(position)
    stretched = stretch_units(torch.arange(source, dtype=torch.float32)[None], target, "left")
    assert stretched[0].tolist() == expected


# -- alignment --------------------------------------------------------------------------------------------------------


def clip_of(units=10, f0=10, spec=10, samples=10 * 512, volume=None):
    return Clip(
        units=torch.rand(3, units),
        f0=torch.rand(f0),
        uv=torch.ones(f0),
        spec=torch.rand(5, spec),
        audio=torch.rand(samples),
        volume=None if volume is None else torch.rand(volume),
    )


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 2)] * 4), st.integers(0, 511), st.booleans(), st.integers(4, 9))
def test_aligned_parts_have_the_same_frames_and_begin_where_they_began(short, rest, with_volume, length):
    units, f0, spec, volume = (length - less for less in short)
    clip = clip_of(units, f0, spec, length * 512 + rest, volume if with_volume else None)
    cut = align(clip, 512, "x.wav")
    common = cut.f0.shape[0]
    assert common == min(units, f0, spec, volume if with_volume else length)
    assert cut.units.shape == (3, common) and cut.uv.shape == (common,) and cut.spec.shape == (5, common)
    assert cut.audio.shape == (common * 512,) and (cut.volume is None) != with_volume
    assert torch.equal(cut.audio, clip.audio[: common * 512]) and torch.equal(cut.units, clip.units[:, :common])


@pytest.mark.parametrize(
    "wrong", [{"spec": 7}, {"units": 13}, {"volume": 7}, {"samples": 13 * 512}, {"samples": 7 * 512}]
)
def test_lengths_three_frames_apart_are_an_error_that_names_the_clip(wrong):
    with pytest.raises(UserError, match="odd.wav"):
        align(clip_of(**wrong), 512, "odd.wav")


def test_parts_of_another_recording_are_recognised_by_their_lengths():
    assert common_frames({"f0": 9, "mel": 11}, "x.wav") == 9
    with pytest.raises(UserError, match=r"x.wav has files of other audio beside it \(frames: f0 8, mel 11\); run 'it'"):
        common_frames({"f0": 8, "mel": 11}, "x.wav", "it")


def test_frames_are_whole_hops():
    assert [frames(samples, 512) for samples in (0, 511, 512, 44100, 44101, 102400)] == [0, 0, 1, 86, 86, 200]


def header(descr, shape):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("<f4", (2, 10**12)),  # petabytes
        header("<f4", (2, 25 * 10**7)),  # an amount that many machines would allocate
        header("<f4", (2**32, 2**32)),  # bytes that overflow to none
        header("<f4", (-2, -3)),
        header("|S0", (2, 10**11)),  # no bytes, and as many numbers once they are made of it
        header("|S1000000000", (2,)),
        header("(20000,20000)<f4", ()),
        header([("a", "<f4")], (2,)),
        b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000,  # numpy raises a TokenError
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",  # a header of four gigabytes
    ],
)
def test_a_false_header_takes_no_memory(files, content):
    for path, read in ((files.f0, files.read_f0), (files.volume, files.read_volume), (files.mel, files.read_mel)):
        path.write_bytes(content + bytes(48))
        assert path.name in bounded(read)
