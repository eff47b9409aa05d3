"""One run of the suite: its folder, its models, and the processes and files that it leaves.

With pytest-xdist the controller makes the run, and its workers find it through the environment.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import certifi
import psutil

from core.paths import ROOT
from tests.waiting import wait_until

FOLDER_VARIABLE: Final = "TEST_RUN_FOLDER"
SAVE_SECONDS: Final = 600.0
END_SECONDS: Final = 5.0
# Short, because they are in the addresses of sockets.
_KILLED: Final = "k"
_CACHES: Final = "c"
_CERTIFICATE_END: Final = "-----END CERTIFICATE-----\n"


class TestRun:
    """Saves the models once for all workers, and finds the processes and files that tests leave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saving: subprocess.Popen[bytes] | None = None
        # Every process that a test starts inherits it, also one that leaves its parent.
        os.environ[FOLDER_VARIABLE] = str(folder)
        # Where a failed test's own folder stays, to be looked at.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        # Libraries leave caches and logs in the folders of these variables.
        for variable in ("TORCHINDUCTOR_CACHE_DIR", "RAY_TMPDIR"):
            os.environ[variable] = str(folder / _CACHES)
        self._temporary = folder / "tmp"
        for made in (self._temporary, folder / _CACHES, folder / _KILLED):
            made.mkdir()
        # A server of another user has to enter it.
        folder.chmod(0o711)
        self._temporary.chmod(0o1777)
        os.environ["TMPDIR"] = str(self._temporary)
        tempfile.tempdir = None  # it is found anew

    def trust_one_certificate(self) -> None:
        """Let every client of httpx read one: 30 ms for all, even of `http:`, and tests poll."""
        first, end, _ = (
            Path(certifi.where()).read_text(encoding="utf-8").partition(_CERTIFICATE_END)
        )
        file = self._folder / "certificate.pem"
        file.write_text(first + end, encoding="utf-8")
        os.environ["SSL_CERT_FILE"] = str(file)

    def start_saving(self) -> None:
        """Start the command that saves both models; a second call does nothing."""
        if self._saving is None:
            own = self._folder / "saving"
            own.mkdir()
            self._saving = subprocess.Popen(
                [sys.executable, "-m", "scripts.save_models"],
                cwd=ROOT,
                # Of a run that ends early it leaves files.
                env=os.environ | {"BENTOML_HOME": str(_home(self._folder)), "TMPDIR": str(own)},
            )
            threading.Thread(target=self._publish_status, daemon=True).start()

    def _publish_status(self) -> None:
        assert self._saving is not None
        partial = self._folder / "status.partial"
        partial.write_text(str(self._saving.wait()))
        partial.rename(_status(self._folder))

    def end(self, *, may_leave_files: bool) -> list[str]:
        """Stop the saving and kill the processes that tests left.

        Returns:
            Their command lines, and the paths in the folder of temporary files.
        """
        if self._saving is not None and self._saving.poll() is None:
            self._saving.terminate()
            self._saving.wait()
        _, left = psutil.wait_procs(self._processes(), END_SECONDS)
        for process in left:
            process.kill()
        return [
            *(f"process {process.pid}: {process.info['cmdline']}" for process in left),
            *(f"file {path}" for path in sorted(self._temporary.iterdir()) if not may_leave_files),
        ]

    def _processes(self) -> list[psutil.Process]:
        """Every process but this one that has the run's folder in its environment."""
        found = psutil.process_iter(["cmdline", "environ", "status"])
        return [
            process
            for process in found
            if (process.info["environ"] or {}).get(FOLDER_VARIABLE) == str(self._folder)
            and process.pid != os.getpid()
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]


def saved_models() -> Path:
    """Wait for both models; return the BentoML home in which they are saved."""
    folder = run_folder()
    wait_until(_status(folder).exists, SAVE_SECONDS)
    assert _status(folder).read_text() == "0", "scripts.save_models failed"
    return _home(folder)


class Turns:
    """Lets the tests of all workers run beside each other, or one worker's alone.

    A test that is to run alone waits until no other worker runs one, and holds them back. Those of
    one worker that follow each other wait once: until the others' tests end, cores are idle.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        self._is_alone = False

    @contextmanager
    def turn(self, *, alone: bool, next_alone: bool) -> Iterator[None]:
        """Run one test, after which the next of this worker runs alone or not."""
        if not self._is_alone:
            self._take(alone=alone)
        try:
            yield
        finally:
            self._is_alone = alone and next_alone
            if not self._is_alone:
                self._held.close()

    def _take(self, *, alone: bool) -> None:
        """Take the locks.

        The first is a turnstile. Each test passes it before it starts, and a test that runs alone
        holds it, so that it waits for one test of each worker and not until a worker has none left.
        """
        turnstile, running = (
            self._held.enter_context((run_folder() / f"{name}.lock").open("w"))
            for name in ("turnstile", "running")
        )
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)


def killed_temporary_folder() -> str:
    """The folder of temporary files of servers that tests kill, which cannot remove theirs."""
    return str(run_folder() / _KILLED)


def run_folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def _home(folder: Path) -> Path:
    return folder / "bentoml"


def _status(folder: Path) -> Path:
    return folder / "status"
