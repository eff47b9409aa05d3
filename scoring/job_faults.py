"""Why a job stops before its end, and what its caller reads about it."""

from __future__ import annotations

import logging
from uuid import UUID

from core.errors import InvalidRequest, UnavailableError
from core.full_disk import NO_ROOM
from datafiles.chunks import InvalidInput
from scoring.journal import CannotResume
from scoring.lost_texts import MAX_GIVEN_UP, RunnersLost, TooManyDeadlyTexts
from scoring.spare_scorer import ModelChanged

logger = logging.getLogger("bentoml.sentiment.jobs")

NEEDS_PYARROW = (
    "Parquet and zstd need pyarrow, which this service does not have; its operator can install "
    "requirements/score.lock"
)


class JobRemoved(Exception):
    """The job was removed while it ran."""


class StepsAside(Exception):
    """Jobs of other callers wait, and this one has run for as long as its turn."""


class ShareUsed(Exception):
    """The job may use no more of the disk; the message says what to do."""


def why_it_waits(error: Exception) -> str | None:
    """Why a job has to be tried again; None: it has failed."""
    match error:
        case UnavailableError():
            return error.detail
        case RunnersLost():
            return "Runners end, also of a harmless text"
        case ModelChanged() | CannotResume(changed=("models",)):
            return "A model was replaced, and the job begins again with the new one"
        case OSError(errno=number) if number in NO_ROOM:
            return "The disk is full"
    return None


def why_it_failed(error: Exception, job: UUID) -> str:
    """What the caller reads of a job that has failed; the log gets what nobody expected."""
    match error:
        case InvalidInput() | InvalidRequest() | ShareUsed():
            return str(error)
        case TooManyDeadlyTexts():
            return f"Each runner that got one of more than {MAX_GIVEN_UP} of its texts ended"
        case CannotResume():
            return "The file was changed after the job had begun"
        case ModuleNotFoundError():
            return NEEDS_PYARROW
        case OSError():
            return f"A file cannot be read or written: {error.strerror or error}"
    logger.error("job %s failed", job, exc_info=error)
    return "An unexpected error; it has been logged"
