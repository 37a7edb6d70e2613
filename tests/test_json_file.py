"""modules/untrusted/json_file.py: any program's JSON is read, and no text does worse than a ValueError."""

import json

import pytest

from modules.untrusted.json_file import parse_json, read_json


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    content = {"a": [1, 2.5, None, True, "名"], "b": {"c": {}}}
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a.json").write_text(json.dumps(content), encoding=encoding)
        assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "[" * 300 + "]" * 300, "9" * 10**6, "", "nul", "\0"])
def test_what_no_program_writes_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_what_is_no_utf_8_is_a_value_error(tmp_path):
    (tmp_path / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")
