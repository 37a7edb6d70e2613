"""The files in which a training run tells people how it goes: text, and TensorBoard's. A full disk costs their lines,
not the run."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from pathlib import Path

from modules import progress_lines
from modules.console import get_logger
from modules.training.saving import SPARE

log = get_logger("train")


class TextLog(logging.FileHandler):
    """Appends all that this program logs, except progress lines, to a file until it is closed."""

    def __init__(self, path: Path, layout: str = "%(message)s"):
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter(layout))
        self.addFilter(lambda record: record.name != progress_lines.log.name)
        logging.getLogger("svc").addHandler(self)
        logging.getLogger("svc").setLevel(logging.DEBUG)

    def close(self) -> None:
        logging.getLogger("svc").removeHandler(self)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be written stays in the file's buffer, and comes when there is room again."""


class Events:
    """TensorBoard's event files of a folder, with SummaryWriter's methods; what there is no room for is left out.

    A run goes on from ``step``. What the folder has of later steps, which a kill has cost the run, TensorBoard leaves
    out from then on, so that no curve goes back.
    """

    def __init__(self, folder: Path, step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.told = folder, False
        self._open(purge_step=step + 1)

    def _open(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=purge_step)

    def _add(self, method: str, *arguments, **options) -> None:
        if shutil.disk_usage(self.folder).free < SPARE:
            return self._leave_out("the disk is full")
        try:
            getattr(self.writer, method)(*arguments, **options)
        except OSError as error:  # perhaps of a write long ago, with which the writer's own thread has ended
            self._leave_out(str(error))
            self.close()
            self._open()

    def _leave_out(self, reason: str) -> None:
        if not self.told:
            log.warning("TensorBoard's files in %s have gaps from now on: %s", self.folder, reason)
        self.told = True

    add_scalar = functools.partialmethod(_add, "add_scalar")
    add_image = functools.partialmethod(_add, "add_image")
    add_audio = functools.partialmethod(_add, "add_audio")
    add_figure = functools.partialmethod(_add, "add_figure")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.close()
