"""JSON files, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modules.untrusted.text_file import read_text
from modules.untrusted.tree_bounds import check_tree


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, with or without a byte order mark, in memory of some 90 times the file's size.

    Raises OSError when it cannot be read, and ValueError when it is not text (modules/untrusted/text_file.py), not JSON
    (json.JSONDecodeError), or has numbers or nested lists beyond what programs write.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """The content of a JSON text. Raises ValueError as ``read_json``."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its lists and objects nest too deep") from None
    check_tree(content, len(text) + 1)
    return content
