"""Checks of the names of speakers, clips and results, so that every stage and operating system can handle the files.

The messages are clauses that give the flaw of a name and its remedy; the caller puts the file's name before them.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from modules.console import option

LONGEST = 255  # in the units of _units
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines, with which so-vits-svc 4.1 splits a filelist
SEPARATORS = "|\\"  # '|' separates a line's fields, and readers replace '\' by '/'
NOT_ON_WINDOWS = '<>:"/\\|?*' + "".join(map(chr, range(32)))


def speaker_flaw(name: str) -> str | None:
    """Return why a speaker's folder cannot be named ``name``; None if it can."""
    if not is_one_folder(name):
        return "has a name that no folder inside another can have; rename it"
    return list_flaw(name) or length_flaw(name)


def result_flaw(name: str, speaker: str) -> str | None:
    """Return why no song of ``speaker`` can be written to a file named ``name``; None if it can."""
    odd = sorted(set(name) & set(NOT_ON_WINDOWS if os.name == "nt" else "/\0"))
    if odd:
        return f"would have {odd[0]!r} in its name, from the speaker '{speaker}'; {_number()}"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return f"would have a name that is no text, from the speaker {speaker!r}; {_number()}"
    surplus = _units(name) - LONGEST
    if surplus <= 0:
        return None
    number = f", or {_number()}" if _units(speaker) > surplus + 3 else ""
    return f"would have a name {_count(surplus)} too long; rename the song{number}"


def _number() -> str:
    return f"give the speaker's number with {option('spk')}"


def list_flaw(text: str) -> str | None:
    """Return why ``text`` cannot be part of a filelist's line, for this program or so-vits-svc 4.1; None if it can."""
    odd = sorted(set(text) & set(SEPARATORS + LINE_ENDS))
    if odd:
        return f"has {odd[0]!r} in its name, which a filelist cannot hold; rename it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "has a name that is not valid Unicode, which a filelist cannot hold; rename it"
    return None


def length_flaw(name: str, ending: str = "") -> str | None:
    """Return why a file cannot be named ``name`` if another one is named ``name + ending``; None if it can."""
    surplus = _units(name + ending) - LONGEST
    if surplus <= 0:
        return None
    beside = f" for the files beside it, such as *{ending}" if ending else ""
    return f"has a name that is {_count(surplus)} too long{beside}; shorten it"


def is_one_folder(name: str) -> bool:
    """Return whether ``folder / name`` is a direct child of ``folder``: names come from configuration files."""
    return Path(name).name == name and name not in ("", "..")


def same_file_key(name: str) -> str:
    """Return a key that is equal for names of the same file on file systems that ignore case, Unicode normal form, or
    trailing blanks and dots, as those of Windows and macOS do."""
    return nfd(nfd(name).casefold()).rstrip(" .")


def nfd(text: str) -> str:
    """Return the text in Unicode normal form D, with accents separate from their letters."""
    return unicodedata.normalize("NFD", text)


def _units(name: str) -> int:
    """Return the length that file systems limit: bytes, on Windows UTF-16 code units."""
    return len(name.encode("utf-16-le", "surrogatepass")) // 2 if os.name == "nt" else len(os.fsencode(name))


def _count(units: int) -> str:
    return f"{units} {'character' if os.name == 'nt' else 'byte'}{'s' if units > 1 else ''}"
