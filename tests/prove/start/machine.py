"""A Debian machine with nothing but make and Python: a root folder that debootstrap makes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.paths import ROOT

# Making one takes a minute, so they stay for the next proof.
MACHINES = Path(os.environ.get("PROOF_MACHINES", "/var/tmp/sentiment-machines"))  # noqa: S108
# The last two are for the tests: git, and what the Node of Playwright needs.
_PACKAGES = "make,python3,python3-venv,ca-certificates,git,libatomic1"
_USER = "1000"
STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """The root folder of a machine and, in it, the home of a user with a fresh clone."""

    root: Path
    home: Path

    @property
    def clone(self) -> Path:
        return self.home / "sentiment-bento"

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command in the clone as a user who has just logged in, with mounts of its own."""
        variables = {"HOME": f"/{self.home.relative_to(self.root)}", "LANG": "C.UTF-8"}
        variables |= {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
        script = (
            'mount -t proc proc "$0/proc" && mount -t sysfs sys "$0/sys" && '
            'mount --rbind /dev "$0/dev" && mount -t tmpfs tmp "$0/tmp" && '
            f'exec chroot --userspec={_USER}:{_USER} "$0" "$@"'
        )
        inside = ["env", "-i", "--chdir", f"/{self.clone.relative_to(self.root)}"]
        inside += [*(f"{name}={value}" for name, value in variables.items()), *command]
        with log.open("ab") as output:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, self.root, *inside],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Run a command to its end.

        Raises:
            RuntimeError: it failed; the message ends with its output.
        """
        if self.start(command, environment, log).wait():
            raise RuntimeError(f"{' '.join(command)}: {log.read_text(encoding='utf-8')[-4000:]}")

    def disk_bytes(self) -> int:
        """The bytes on disk below the home: clone, packages, their cache, models and databases."""
        output = subprocess.check_output(["du", "-s", "--block-size=1", self.home], text=True)
        return int(output.split()[0])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(STOP_SECONDS)


@contextmanager
def machine(suite: str) -> Iterator[Machine]:
    """A machine of a Debian suite with a fresh clone of this checkout's commit."""
    root = MACHINES / suite
    complete = root / "complete"
    if not complete.exists() or complete.read_text() != _PACKAGES:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        options = ["--variant=minbase", f"--include={_PACKAGES}"]
        with (MACHINES / f"{suite}.log").open("w") as log:
            subprocess.run(["debootstrap", *options, suite, root], check=True, stdout=log)
        useradd = ["/usr/sbin/useradd", "--create-home", "--uid", _USER, "user"]
        subprocess.run(["chroot", root, *useradd], check=True)
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        complete.write_text(_PACKAGES)
    home = Path(tempfile.mkdtemp(dir=root / "home"))
    try:
        made = Machine(root, home)
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, made.clone], check=True)
        subprocess.run(["chown", "-R", f"{_USER}:{_USER}", home], check=True)
        yield made
    finally:
        shutil.rmtree(home)
