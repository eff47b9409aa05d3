"""The folder of the metrics of one start's processes."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Set
from pathlib import Path
from tempfile import TemporaryDirectory

from core.metrics_files import has_open, merge_dead
from core.temporary_folders import claim

logger = logging.getLogger("bentoml.sentiment")


class MetricsFolder:
    """Holds the metrics of living processes a process, and those of dead ones together.

    It ends with the process that made it. BentoML's own is shared by all that is served from one
    home, and each start empties it.
    """

    def __init__(self) -> None:
        folder = TemporaryDirectory(prefix="metrics-", ignore_cleanup_errors=True)
        atexit.register(folder.cleanup)
        self.path = Path(folder.name)
        claim(self.path)
        self._fault = ""

    def merge_dead(self, workers: Set[int]) -> None:
        """Merge the metrics of processes that have ended, and are none of `workers`."""

        def is_open(process: int, file: Path) -> bool:
            # The log shipper is not among the workers.
            return process in workers or has_open(process, file)

        fault = ""
        try:
            merge_dead(self.path, is_open)
        except BlockingIOError:
            return  # the next look comes in a second
        except OSError as error:
            fault = error.strerror or type(error).__name__
        if fault and fault != self._fault:
            logger.warning("the metrics of dead processes are merged later: %s", fault)
        self._fault = fault
