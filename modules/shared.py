"""Share large objects, such as networks, among all that use them at the same time."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

Built = TypeVar("Built")


def shared(build: Callable[..., Built]) -> Callable[..., Built]:
    """Decorate a function of hashable arguments: equal arguments give the same object while anything refers to it.

    The object is freed with its last user. Threads that ask for the same object at the same time wait for one build.
    """
    alive: weakref.WeakValueDictionary[tuple, Built] = weakref.WeakValueDictionary()
    lock = threading.Lock()

    @functools.wraps(build)
    def get(*arguments: object) -> Built:
        with lock:
            found = alive.get(arguments)
            if found is None:
                found = alive[arguments] = build(*arguments)
            return found

    return get
