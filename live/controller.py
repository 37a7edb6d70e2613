"""Applies settings to a live conversion in the background, so that a window stays responsive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from live.settings import Settings
from modules.console import explain, get_logger

if TYPE_CHECKING:  # imported where it is used: the window opens before PyTorch is loaded
    from live.engine import Card, Engine, Status

log = get_logger("live")


class Controller:
    """Starts, changes and stops a conversion. Methods return at once; a thread does what they ask, in order.

    Args:
        open_card: returns the sound card for settings; None for the computer's.

    Attributes:
        busy: what it is doing, or empty.
        error: the sentence of the last failure, or empty.
    """

    def __init__(self, open_card: Callable[[Settings], Card] | None = None):
        self.busy = self.error = ""
        self._open_card = open_card or _sound_card
        self._is_wanted = False  # whether the newest request is a conversion
        self._engine: Engine | None = None
        self._svc = self._converter = self._settings = None
        self._loaded: tuple | None = None  # what ``_svc`` was loaded for
        self._wishes: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="live settings", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether sound is converted."""
        engine = self._engine
        return engine is not None and not engine.status.error

    @property
    def is_active(self) -> bool:
        """Whether sound is converted and goes on, or a start is queued or in progress."""
        return self._is_wanted and (self.is_running or not self.is_idle)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was asked for is done."""
        return not self._wishes.unfinished_tasks

    def status(self) -> Status | None:
        """Return the engine's status, None if nothing runs."""
        engine = self._engine
        return engine.status if engine is not None else None

    def apply(self, settings: Settings) -> None:
        """Start the conversion, or change the running one. What can change without a gap does; a model loads while the
        old one plays; other devices or blocks begin a new stream."""
        self._is_wanted = True
        self._wishes.put(lambda: self._apply(settings))

    def stop(self) -> None:
        """Stop the conversion; the model stays loaded."""
        self._is_wanted = False
        self._wishes.put(self._stop)

    def close(self) -> None:
        """Stop the conversion and the thread, and wait for both."""
        self._wishes.put(self._stop)
        self._wishes.put(None)
        self._thread.join()

    def wait(self) -> None:
        """Wait until everything that was asked for is done."""
        self._wishes.join()

    def _serve(self) -> None:
        while True:
            wish = self._wishes.get()
            try:
                if wish is None:
                    return
                self.error = ""
                wish()
            except Exception as error:  # a thread's exception would be lost
                sentence = explain(error)
                if sentence is None:
                    log.error("applying the settings failed because of a bug in the program:", exc_info=error)
                    sentence = f"{type(error).__name__}: {error}"
                self.error = sentence
            finally:
                self.busy = ""
                self._wishes.task_done()

    def _apply(self, settings: Settings) -> None:
        old, self._settings = self._settings, None  # None until everything has succeeded
        if not self.is_running or old is None or settings.stream != old.stream:
            self._start(settings)
        elif settings.model != old.model:
            self._replace(settings)
        elif settings.conversion != old.conversion:
            self._settings = old  # which stay if the change fails
            self._converter.change(settings.conversion_of(self._svc))
        self._settings = settings

    def _start(self, settings: Settings) -> None:
        from live.engine import Engine

        svc = self._load(settings)
        self._stop()
        self.busy = "measuring the speed of this computer"
        self._converter = settings.build_converter(svc)
        card = self._open_card(settings)
        card.refresh()  # for devices that came later; no stream is open now
        engine = Engine(card, self._converter, settings.fixed_delay)
        engine.run()
        self._engine = engine

    def _replace(self, settings: Settings) -> None:
        """Let another model take over while the old one plays, or begin a new stream if its frames differ."""
        from live.session import calibrate

        converter = settings.build_converter(self._load(settings))
        calibrate(converter)  # the first blocks allocate memory
        try:
            self._engine.replace(converter)
        except ValueError:
            self._start(settings)
        else:
            self._converter = converter

    def _load(self, settings: Settings):
        if self._loaded != settings.model:
            self.busy = "loading the model"
            self._svc = settings.load_model()
            self._loaded = settings.model
        return self._svc

    def _stop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()


def _sound_card(settings: Settings) -> Card:
    from live.sound_card import SoundCard

    return SoundCard(settings.source, settings.sink)
