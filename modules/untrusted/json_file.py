"""Reader for untrusted JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modules.untrusted.text_file import read_text
from modules.untrusted.tree_bounds import check_tree


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with or without a byte order mark; takes memory of up to about 90 times the file's size.

    Raises OSError if it cannot be read, and ValueError if it is neither UTF-8 nor UTF-16, not JSON
    (json.JSONDecodeError), or if a number is too long or the nesting too deep.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """Parse a JSON text. Raises ValueError as ``read_json`` does."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its lists and objects nest too deep") from None
    check_tree(content, len(text) + 1)
    return content
