"""Releases in the cluster, made by Helm's own library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypedDict, Unpack

import helm_python
from helm_python import _native

from tests.prove.cluster.chart import CHART, RELEASE, Values
from tests.prove.cluster.control_plane import kubeconfig
from tests.prove.cluster.front import Front

HelmError = helm_python.HelmError
DEFAULTS: dict[str, object] = {"wait": "hookOnly", "timeout_seconds": 120}


class Options(TypedDict, total=False):
    """Of an install or an upgrade, as Helm's library names them."""

    wait: str
    timeout_seconds: int
    take_ownership: bool
    force_conflicts: bool


class Helm:
    """Helm 4, for the releases of one namespace."""

    def __init__(self, front: Front, namespace: str) -> None:
        self.namespace = namespace
        self._config = helm_python.Config(
            kubeconfig_content=json.dumps(kubeconfig({"server": front.url})), namespace=namespace
        )

    def __enter__(self) -> Helm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._config.close()

    def install(self, values: Values | None = None, **options: Unpack[Options]) -> dict[str, Any]:
        """`helm install`, server-side as Helm 4 does it.

        Raises:
            HelmError: the release is refused, or its hook fails.
        """
        return self._run("helm_install", values, {"namespace": self.namespace, **options})

    def upgrade(self, values: Values | None = None, **options: Unpack[Options]) -> dict[str, Any]:
        """`helm upgrade`.

        Raises:
            HelmError: the release is refused, or its hook fails.
        """
        # Without values Helm else takes those of the last revision.
        return self._run("helm_upgrade", values, {"reset_values": True, **options})

    def rollback(self) -> None:
        self._config.rollback(RELEASE, wait="hookOnly", timeout=120)

    def uninstall(self) -> None:
        self._config.uninstall(RELEASE, timeout=60)

    def history(self) -> list[dict[str, Any]]:
        revisions: list[dict[str, Any]] = self._config.history(RELEASE)
        return revisions

    def _run(
        self, function: str, values: Values | None, options: Mapping[str, object]
    ) -> dict[str, Any]:
        # Helm's options; the Python methods of the library do not have all of them.
        given = {name: value for name, value in {**DEFAULTS, **options}.items() if value}
        payload = _native.call_string(
            function,
            self._config._raw(),
            _native.HANDLE(0),
            _native.HANDLE(0),
            str(CHART),
            RELEASE,
            json.dumps(values or {}),
            json.dumps(given),
        )
        release: dict[str, Any] = json.loads(payload)
        return release
