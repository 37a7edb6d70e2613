"""Text files that a user may have edited."""

from __future__ import annotations

import codecs
from pathlib import Path


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with the byte order mark of that, as Windows' editors and
    PowerShell write it; line ends are ``\\n``. Raises OSError, or UnicodeDecodeError when it is neither."""
    content = Path(path).read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")
