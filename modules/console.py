"""Output of all scripts: a one-line error for wrong input, log lines and progress bars."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import logging
import os
import reprlib
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from modules.version import VERSION

# Errors of the system that are no bug: permissions, a full disk, a file in place of a folder.
REFUSALS = "EACCES EPERM EROFS ENOSPC EDQUOT EEXIST ENOTDIR EISDIR EIO ENOMEM ENAMETOOLONG".split()
BLOCKED = frozenset(getattr(errno, name) for name in REFUSALS if hasattr(errno, name))  # Windows lacks some

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control, surrogate, line and paragraph separator

# How often an idle OpenMP thread polls for work before it sleeps. The default is milliseconds of polling, which makes
# a run several times slower beside another busy process (benchmarks/thread_waiting.py).
SPIN_COUNT = "20000"
LONGEST_VALUE = 1000  # characters of a value or path in a message
WAIT_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


class UserError(Exception):
    """Wrong input. The message is a whole sentence for the user: what is wrong, in which file or setting, what to do.

    ``option`` gives the names of settings.
    """


_flags: dict[str, tuple[str, bool]] = {}  # of the running script: each setting's flag, and whether it takes a value


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a script's arguments, with ``--version``; until the script ends, ``option`` returns its flags."""
    if "--version" not in parser._option_string_actions:
        parser.add_argument("--version", action="version", version=f"so-vits-svc {VERSION}")
    arguments = parser.parse_args(argv)
    for action in parser._actions:
        if action.option_strings:
            _flags[action.dest] = action.option_strings[0], action.nargs != 0
    return arguments


def name_setting(name: str, label: str) -> None:
    """Let ``option`` return ``label`` for a setting until the script ends: a window names settings as it shows them."""
    _flags[name] = label, True


def option(name: str, value: object = None) -> str:
    """Return a setting's name for messages: its flag if the running script has one, or its label in a window, else the
    parameter's name.

    Packages name settings only through this function, because they also serve programs without flags. A flag is found
    by its ``dest`` in the parser, which therefore equals the parameter's name. With a ``value`` the result is what the
    user types: ``-cr 0``, a switch without a value, or ``cluster_infer_ratio=0``.
    """
    flag, has_value = _flags.get(name, (None, True))
    if value is None:
        return flag or name
    if flag is None:
        return f"{name}={value}"
    return f"{flag} {value}" if has_value else flag


def script(main: Callable[[Sequence[str] | None], int | None]) -> Callable[[Sequence[str] | None], int]:
    """Wrap a script's ``main(argv)``: a UserError or an error of the system is printed in one line and gives exit
    code 2; Ctrl-C gives 130.

    Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        limit_spinning()
        _accept_any_text()
        set_up_logging()
        _flags.clear()
        try:
            return main(argv) or 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            print(f"error: {printable(sentence)}", file=sys.stderr)
            return 2
        finally:
            _flags.clear()

    return run


def limit_spinning() -> None:
    """Let idle OpenMP threads sleep soon, unless the user's environment sets how they wait.

    Call it before PyTorch is loaded: GNU OpenMP, which its Linux builds use, reads the setting once at that time.
    """
    if not any(name in os.environ for name in WAIT_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def explain(error: Exception) -> str | None:
    """Return the message for wrong input, an error of the system or a lack of memory; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in BLOCKED:
        return f"{error.filename or 'a file'} cannot be written or read: {error.strerror}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_lack_of_memory(error)):
        reason = f" ({str(error).partition(chr(10))[0]})" if str(error) else ""
        return f"the memory is too small{reason}; end other programs, and run it again"
    return None


class _ShortRepr(reprlib.Repr):
    """repr that shortens long or deeply nested values."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 200, 200, 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 20

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 10_000:  # more digits than Python writes
            return f"a whole number of {value.bit_length()} bits"
        return super().repr_int(value, level)


def short_repr(value: Any) -> str:
    """Return the repr of a value from a file or user for a message, shortened to about LONGEST_VALUE characters."""
    text = _ShortRepr().repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def failure(item: object, error: Exception) -> str:
    """Return the message about one item of many that failed with ``error``; log the traceback if it is a bug."""
    sentence = explain(error)
    if sentence is None:
        sentence = f"{type(error).__name__}: {error}"
        get_logger("failure").error("%s failed because of a bug in the program:", item, exc_info=error)
    return sentence if str(item) in sentence else f"{item}: {sentence}"


def printable(text: object) -> str:
    """Return the text in one line without control characters, which file names may contain: line ends, other control
    characters and bytes that are not Unicode become escapes such as ``\\n`` and ``\\udcff``."""
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in UNPRINTABLE else sign
        for sign in str(text)
    )


def _is_lack_of_memory(error: RuntimeError) -> bool:
    from modules.memory import is_lack_of_memory  # imports PyTorch, which has raised this error

    return is_lack_of_memory(error)


def _accept_any_text() -> None:
    """Print characters that the console's encoding lacks as ``\\xfc`` or ``\\u540d`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the stream may be None or a replacement without this method
            stream.reconfigure(errors="backslashreplace")


def set_up_logging() -> None:
    """Log this program's messages to standard error without a prefix, and only warnings of other libraries."""
    console = _ProgressBarHandler()
    console.setFormatter(_OneLine("%(message)s"))
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING, handlers=[console])
    logging.getLogger("svc").setLevel(logging.DEBUG)


class _ProgressBarHandler(logging.Handler):
    """Writes to standard error without breaking a progress bar there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class _OneLine(logging.Formatter):
    """Makes this program's messages ``printable``; leaves tracebacks and other libraries' messages unchanged."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        message = super().formatMessage(record)
        return printable(message) if record.name.startswith("svc.") else message


def get_logger(noun: str) -> logging.Logger:
    """Return the logger of one part of the program, for instance ``get_logger("train")``."""
    return logging.getLogger(f"svc.{noun}")


def progress(
    items: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    description: str,
    unit: str = "it",
    leave: bool = True,
):
    """Return a tqdm progress bar on standard error. If that is no terminal, progress is logged once a minute instead
    (modules/progress_lines.py). Ranks other than 0 show nothing.

    ``leave``: keep the bar on screen when it is done; False for a bar inside another.
    """
    from tqdm import tqdm

    silent = logging.getLogger("svc").getEffectiveLevel() > logging.WARNING
    if not silent and not (sys.stderr and sys.stderr.isatty()):
        from modules.progress_lines import ProgressLines

        return ProgressLines(items, total, initial, description, unit, within=not leave)
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=printable(description),
        unit=unit,
        leave=leave,
        dynamic_ncols=True,
        mininterval=0.3,
        disable=silent,
    )


@contextlib.contextmanager
def nested_progress(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar inside another one; yields the function that updates it with (done, total)."""
    with progress(description=description, unit=unit, leave=False) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield watch
