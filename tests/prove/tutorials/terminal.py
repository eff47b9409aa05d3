"""A shell in which the commands of a page are typed, one after the other."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

SECONDS = 500.0
_END = "end-of-command"


class Terminal:
    """One bash; what a command prints on either stream comes back as one text."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._servers: list[subprocess.Popen[bytes]] = []
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """The exit status of a command, and what it printed.

        Raises:
            TimeoutError: it did not end in `SECONDS`.
        """
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # Nothing to read from: the shell's own input is the next command.
        typed = f"{{ {command}\n}} </dev/null; printf '\\n{_END} %d\\n' $?\n"
        self._bash.stdin.write(typed.encode())
        self._bash.stdin.flush()
        printed = b""
        deadline = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while f"\n{_END} ".encode() not in printed or not printed.endswith(b"\n"):
                if not selector.select(deadline - time.monotonic()):
                    raise TimeoutError(f"{command} did not end:\n{printed.decode()}")
                chunk = os.read(self._bash.stdout.fileno(), 65_536)
                assert chunk, f"the shell ended with {command}:\n{printed.decode()}"
                printed += chunk
        text, _, status = printed.decode().rpartition(f"\n{_END} ")
        return int(status), text

    def serve(self, command: str, url: str, log: Path) -> None:
        """Start a server in a terminal of its own, and wait until it is ready."""
        with log.open("ab") as output:
            server = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._servers.append(server)
        deadline = time.monotonic() + SECONDS
        while not _is_ready(url):
            text = log.read_text(encoding="utf-8")
            assert server.poll() is None, f"{command} ended:\n{text[-4000:]}"
            assert time.monotonic() < deadline, f"{command} is not ready:\n{text[-4000:]}"
            time.sleep(0.2)

    def stop_servers(self) -> None:
        """End the servers as Ctrl-C in their terminals does."""
        while self._servers:
            server = self._servers.pop()
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGINT)
                server.wait(60)

    def close(self) -> None:
        self.stop_servers()
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.wait(30)
        self._bash.stdout.close()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).is_success
    except httpx.TransportError:
        return False


@contextmanager
def terminal(folder: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    opened = Terminal(folder, environment)
    try:
        yield opened
    finally:
        opened.close()
