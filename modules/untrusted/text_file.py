"""Text files that a user may have edited."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: str | Path) -> str:
    """Read a text in UTF-8, or in UTF-16 with a byte order mark, as Windows' editors and PowerShell write it.

    Line ends become ``\\n``. Raises OSError, or UnicodeDecodeError if the file is neither.
    """
    content = Path(path).read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
