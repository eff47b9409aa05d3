"""OpenVINO without its converter of other frameworks' models, which takes half of its import."""

from __future__ import annotations

from core.absent import absent


def import_openvino() -> None:
    """Import `openvino` before anything else does: 9 MiB and 0.1 s less in a runner.

    Only processes that compute need it, so no module imports it at its top.
    """
    # It imports its tools only if they are there: a package without them exists, too.
    with absent("openvino.tools"):
        import openvino  # noqa: F401
