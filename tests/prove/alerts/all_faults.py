"""All faults: importing a module declares its own."""

from __future__ import annotations

from typing import Final

from tests.prove.alerts import model_faults, serving_faults, storage_faults
from tests.prove.alerts.faults import DECLARED, Fault

FAULTS: Final[list[Fault]] = DECLARED
MODULES = (model_faults, serving_faults, storage_faults)
