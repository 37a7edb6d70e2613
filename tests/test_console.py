"""modules/console.py: wrong input gives a one-line error, a bug a traceback."""

import argparse
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modules.console import SPIN_COUNT, UserError, failure, name_setting, option, parse_flags, printable, script


def test_wrong_input_is_one_line_and_exit_code_2(capsys):
    @script
    def main(argv=None):
        raise UserError("the flag -x is 3; it must be 1 or 2")

    assert main() == 2
    assert capsys.readouterr().err == "error: the flag -x is 3; it must be 1 or 2\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "results").write_text("a file where a folder belongs")

    @script
    def main(argv=None):
        (tmp_path / "results" / "song").mkdir(parents=True)

    assert main() == 2
    assert str(tmp_path / "results") in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("absent"), RuntimeError("shapes do not match")])
def test_a_bug_keeps_its_traceback(error):
    @script
    def main(argv=None):
        raise error

    with pytest.raises(type(error)):
        main()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), ""),
        (MemoryError("G_5.pth does not fit"), " (G_5.pth does not fit)"),
        (RuntimeError("CUDA out of memory. It is full\nand"), " (CUDA out of memory. It is full)"),
    ],
)
def test_a_lack_of_memory_is_one_line_too(error, reason, capsys):
    @script
    def main(argv=None):
        raise error

    assert main() == 2
    assert capsys.readouterr().err == f"error: the memory is too small{reason}; end other programs, and run it again\n"


def test_ctrl_c_ends_with_its_own_exit_code():
    @script
    def main(argv=None):
        raise KeyboardInterrupt

    assert main() == 130


def test_success_is_exit_code_0_and_a_partial_one_keeps_its_number():
    assert script(lambda argv=None: None)() == 0
    assert script(lambda argv=None: 1)() == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPIN_COUNT}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_scripts_limit_spinning_unless_the_user_has_chosen_how_threads_wait(given, expected, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    found = {}
    script(lambda argv=None: found.update(os.environ))()
    assert found == expected


def test_a_setting_is_named_by_its_flag_in_a_script_and_by_its_parameter_elsewhere():
    def sentence():
        values = ("ratio", 0), ("ratio", None), ("cuda_graphs", False), ("other", 1)
        return " ".join(option(name, value) for name, value in values)

    parser = argparse.ArgumentParser()
    parser.add_argument("-cr", "--cluster_infer_ratio", dest="ratio", type=float)
    parser.add_argument("--no_cuda_graphs", dest="cuda_graphs", action="store_false")

    @script
    def main(argv=None):
        assert parse_flags(parser, argv).ratio == 0.5
        raise UserError(sentence())

    @script
    def window(argv=None):
        parse_flags(parser, argv)
        name_setting("ratio", "Ratio")
        raise UserError(sentence())

    found = []
    for _ in range(2):
        found.append(sentence())
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            assert main(["-cr", "0.5"]) == 2
        assert errors.getvalue() == "error: -cr 0 -cr --no_cuda_graphs other=1\n"
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            assert window([]) == 2
        assert errors.getvalue() == "error: Ratio 0 Ratio --no_cuda_graphs other=1\n"
    assert set(found) == {"ratio=0 ratio cuda_graphs=False other=1"}, "a script's flags end with it"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_path_that_the_console_cannot_encode_is_printed_all_the_same(encoding):
    program = (
        "import sys\nfrom modules.console import get_logger, script\n"
        "@script\ndef main(argv=None):\n"
        "    print('\\u540d \\udcff'), get_logger('x').info('\\u540d \\udcff'), print('done')\n"
        "sys.exit(main())"
    )
    environment = {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == b"done" and b"\\udcff" in run.stdout and b"\\udcff" in run.stderr


def test_a_name_with_line_ends_or_control_characters_is_printed_in_one_line():
    program = (
        "import sys\nfrom modules.console import UserError, get_logger, script\n"
        "name = 'a\\nb\\r\\x1b[2J\\x85\\u2028\\udcff\\x7f \u540d'\n"
        "@script\ndef main(argv=None):\n"
        "    get_logger('x').info('passed over: %s', name)\n    raise UserError(f'{name} is odd')\n"
        "sys.exit(main())"
    )
    environment = {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    printed = r"a\nb\r\x1b[2J\x85\u2028\udcff\x7f 名"
    lines = run.stderr.decode("utf-8").replace("\r\n", "\n").split("\n")
    assert run.returncode == 2 and lines == [f"passed over: {printed}", f"error: {printed} is odd", ""]


def test_printable_text_stays_unchanged():
    for name in ("Größe (1).wav", "名 前", "e\u0301", "\U0001f468\u200d\U0001f469", "\u3000a\xa0", "-x", "a|b", "a\\b"):
        assert printable(name) == name


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("a.wav holds no sound"), "a.wav holds no sound"),
        (MemoryError(), "a.wav: the memory is too small; end other programs, and run it again"),
        (OSError(28, "No space left on device", "b.flac"), "a.wav: b.flac cannot be written or read: No space left"),
        (ZeroDivisionError("division by zero"), "a.wav: ZeroDivisionError: division by zero"),
    ],
)
def test_one_failure_of_many_is_a_sentence_with_its_name_and_a_bug_logs_its_traceback(error, sentence, caplog):
    assert failure("a.wav", error).startswith(sentence)
    assert any(record.exc_info for record in caplog.records) == isinstance(error, ZeroDivisionError)
