"""The program of a worker process: BentoML's, without what that imports and never uses there.

The process manager starts it by its path, from any folder, where the fork server does not fork the
worker (serving/supervision). A third of what a runner imported was BentoML's client of its cloud,
its process manager and its proxy (docs/decisions/0069).
"""

from __future__ import annotations

import gc
import re
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

BENTOML_WORKER = "_bentoml_impl.worker.service"
# Each with all that lies in it. No library that BentoML imports: ours or a user's code may use it.
UNUSED_ANYWHERE = (
    "bentoml._internal.cloud",  # httpx, HTTP/2, WebSockets, dateutil, schemas of an API
    "bentoml._internal.container.generate",  # writes Dockerfiles
    "_bentoml_impl.server.proxy",  # for services with a command of their own
    "uvicorn.supervisors",  # reload and workers of uvicorn's own
)
UNUSED = (
    *UNUSED_ANYWHERE,
    "_bentoml_impl.server.serving",  # the process manager: circus, ZeroMQ, Tornado
)
# BentoML's client of services. Each worker makes one of itself, and the API one of each runner.
CLIENT = "_bentoml_impl.client"
RUNNER = re.compile(r"_runner_v\d+$")  # runners/services


class Unused:
    """What a module that was left out has by any name."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        raise RuntimeError(f"serving/worker.py leaves {type(self).__module__} out")


class NoProxy:
    """The client of itself that BentoML makes in a runner, opens and closes, and nobody calls."""

    to_async = to_sync = None

    def __init__(self, _url: str, **_options: Any) -> None:
        pass

    async def __aenter__(self) -> NoProxy:
        return self

    async def close(self) -> None:
        pass


class UnusedModule(ModuleType):
    """Has whatever is imported from it, as long as nobody uses it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Unused,), {"__module__": self.__name__})


class UnusedFinder(MetaPathFinder, Loader):
    """Makes an `UnusedModule` of each of `unused`."""

    def __init__(self, unused: Sequence[str]) -> None:
        self._unused = unused

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if any(name == unused or name.startswith(f"{unused}.") for unused in self._unused):
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return UnusedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == CLIENT:
            module.RemoteProxy = NoProxy  # type: ignore[attr-defined]


def main() -> None:
    """Run BentoML's worker as `python -m` would."""
    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())
    # httpx and aiohttp, which the API needs for its own calls.
    leave_out((*UNUSED, CLIENT) if is_runner() else UNUSED)
    # As `core.gc.paused_gc`, which cannot be imported before BentoML knows where service.py is.
    gc.disable()
    import_bentoml()
    gc.enable()
    run()


def is_runner() -> bool:
    """Whether the arguments of this process are those of a runner."""
    return any(map(RUNNER.search, sys.argv))


def leave_out(unused: Sequence[str]) -> None:
    """Make `UnusedModule`s of `unused`, which nothing has imported yet."""
    sys.meta_path.insert(0, UnusedFinder(unused))


def import_bentoml() -> None:
    """Import what BentoML's worker needs before it loads the service."""
    # As `core.absent.absent`: httpx does without its command line, which needs rich and pygments.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    import httpx  # noqa: F401

    del sys.modules["httpx._main"]
    import _bentoml_impl.server.app  # noqa: F401
    import bentoml._internal.service.loader  # noqa: F401


def run() -> None:
    """Run BentoML's worker with the arguments of this process."""
    runpy.run_module(BENTOML_WORKER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
