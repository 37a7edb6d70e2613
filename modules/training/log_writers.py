"""Writers of a training run's text log and TensorBoard events. A full disk loses lines but does not stop the run."""

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
    """Appends everything that the program logs, except progress lines, to a file until closed."""

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
        """Ignore the error: the line stays in the file's buffer and is written when there is room again."""


class TensorBoardWriter:
    """SummaryWriter for a folder that drops events instead of failing when the disk is full.

    ``step`` is the step at which the run starts or resumes. TensorBoard then hides events of later steps, which a
    killed run may have left in the folder, so that no curve runs backwards.
    """

    def __init__(self, folder: Path, step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.warned = folder, False
        self._open(purge_step=step + 1)

    def _open(self, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=purge_step)

    def _add(self, method: str, *arguments, **options) -> None:
        if shutil.disk_usage(self.folder).free < SPARE:
            return self._warn_of_gaps("the disk is full")
        try:
            getattr(self.writer, method)(*arguments, **options)
        except OSError as error:  # possibly of an earlier write, in which the writer's thread ended
            self._warn_of_gaps(str(error))
            self.close()
            self._open()

    def _warn_of_gaps(self, reason: str) -> None:
        if not self.warned:
            log.warning("TensorBoard's files in %s have gaps from now on: %s", self.folder, reason)
        self.warned = True

    add_scalar = functools.partialmethod(_add, "add_scalar")
    add_image = functools.partialmethod(_add, "add_image")
    add_audio = functools.partialmethod(_add, "add_audio")
    add_figure = functools.partialmethod(_add, "add_figure")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.close()
