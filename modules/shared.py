"""Share large objects, such as networks, among all that use them at the same time."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Built = TypeVar("Built")


def shared(build: Callable[..., Built]) -> Callable[..., Built]:
    """Decorate a function of hashable arguments: equal arguments give the same object while anything refers to it.

    A path stands for the file's content: a file that was replaced, or the same relative path in another folder, gives
    another object. The object is freed with its last user. Threads that ask for the same object at the same time wait
    for one build.
    """
    alive: weakref.WeakValueDictionary[tuple, Built] = weakref.WeakValueDictionary()
    lock = threading.Lock()

    @functools.wraps(build)
    def get(*arguments: object) -> Built:
        key = tuple(map(_identity, arguments))
        with lock:
            found = alive.get(key)
            if found is None:
                found = alive[key] = build(*arguments)
            return found

    return get


def _identity(argument: object) -> object:
    """Return what tells an argument from others; for a file also its size and time of change."""
    if not isinstance(argument, Path) or not argument.is_file():
        return argument
    status = argument.stat()
    return argument.absolute(), status.st_size, status.st_mtime_ns
