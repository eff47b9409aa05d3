"""Network namespaces as nodes, each with a cable to one switch; cables fail on request.

The namespaces have no names: each lives as long as a process that does nothing, and that one ends
with the tests, however they end. Nothing in them can reach another network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

from tests.waiting import wait_until

PROGRAMS = {
    "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "setpriv": "util-linux",
    "unshare": "util-linux",
}  # fmt: skip
# Networks of RFC 2544 are for tests; a run has one of its own.
SUBNET = f"198.18.{os.getpid() % 256}"
TESTS_ADDRESS = f"{SUBNET}.254"
SLOW_CABLE = Path(__file__).with_name("slow_cable.py")
# What is dropped is dropped at the port of the switch, both ways and without a word.
CUT = """
table netdev {port} {{
  chain from {{ type filter hook ingress device {port} priority 0; drop; }}
  chain to {{ type filter hook egress device {port} priority 0; drop; }}
}}
"""


@dataclass(frozen=True)
class Namespace:
    """A network namespace, and the process that keeps it."""

    name: str
    keeper: subprocess.Popen[bytes]

    @property
    def enter(self) -> Sequence[str]:
        """A command that becomes another one in this namespace."""
        return ("nsenter", f"--net=/proc/{self.keeper.pid}/ns/net")

    def run(self, *command: str, text: str | None = None) -> str:
        done = subprocess.run(
            [*self.enter, *command], input=text, capture_output=True, text=True, check=False,
            timeout=10,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout


class Network:
    """A switch, and the nodes at its ports by address."""

    def __init__(self, switch: Namespace, nodes: dict[str, Namespace]) -> None:
        self._switch = switch
        self.nodes = nodes

    def enter(self, address: str) -> Sequence[str]:
        return self.nodes[address].enter

    @contextmanager
    def cut(self, address: str) -> Iterator[None]:
        """Drop all packets from and to a node; neither end learns of it."""
        port = self.nodes[address].name
        self._switch.run("nft", "-f", "-", text=CUT.format(port=port))
        try:
            yield
        finally:
            self._switch.run("nft", "delete", "table", "netdev", port)

    @contextmanager
    def unplugged(self, address: str) -> Iterator[None]:
        """Take a node's cable out of the switch; both ends see that the link is down."""
        port = self.nodes[address].name
        self._switch.run("ip", "link", "set", port, "down")
        try:
            yield
        finally:
            self._switch.run("ip", "link", "set", port, "up")

    @contextmanager
    def slow(self, address: str, *, delay_ms: int, loss_percent: int) -> Iterator[None]:
        """Delay each packet from and to a node, and lose some of them."""
        port = self.nodes[address].name
        command = [sys.executable, str(SLOW_CABLE), str(delay_ms), str(loss_percent)]
        cable = subprocess.Popen([*self._switch.enter, *command], stdout=PIPE)
        assert cable.stdout is not None
        near, far = cable.stdout.readline().decode().split()
        try:
            # The node, alone at a second switch, and the cable between both.
            self._switch.run("ip", "link", "add", "second", "type", "bridge")
            for link, bridge in ((near, "switch"), (far, "second"), (port, "second")):
                self._switch.run("ip", "link", "set", link, "master", bridge, "up")
            self._switch.run("ip", "link", "set", "second", "up")
            yield
        finally:
            self._switch.run("ip", "link", "set", port, "master", "switch")
            self._switch.run("ip", "link", "delete", "second")
            cable.terminate()
            cable.wait()
            cable.stdout.close()

    def bytes_of(self, address: str) -> int:
        """What a node has sent and received, with the headers of Ethernet."""
        counters = self.nodes[address].run("cat", "/proc/net/dev")
        [line] = [line for line in counters.splitlines() if line.strip().startswith("eth0:")]
        fields = line.partition(":")[2].split()
        return int(fields[0]) + int(fields[8])


@contextmanager
def network(
    names: dict[str, str], tests_addresses: Sequence[str] = (TESTS_ADDRESS,)
) -> Iterator[Network]:
    """A network with a node for each address; `names` says what each is called.

    This process has `tests_addresses` in it.
    """
    assert os.geteuid() == 0, "network namespaces need root"
    for program, package in PROGRAMS.items():
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        assert shutil.which(program, path=path), f"{program} is missing: install {package}"
    made: list[Namespace] = []
    try:
        made.extend(_namespace(name) for name in ("switch", *names.values()))
        switch, *nodes = made
        switch.run("ip", "link", "add", "switch", "type", "bridge")
        switch.run("ip", "link", "set", "switch", "up")
        for address, node in zip(names, nodes, strict=True):
            _plug(switch, node.name, "eth0", str(node.keeper.pid))
            node.run("ip", "link", "set", "lo", "up")
            node.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            node.run("ip", "link", "set", "eth0", "up")
        own = f"proof{os.getpid()}"
        _plug(switch, "tests", own, str(os.getpid()))
        added = [f"address add {address}/24 dev {own}" for address in tests_addresses]
        for command in (*added, f"link set {own} up"):
            subprocess.run(["ip", *command.split()], check=True, timeout=10)
        yield Network(switch, dict(zip(names, nodes, strict=True)))
    finally:
        for namespace in made:
            namespace.keeper.kill()
            namespace.keeper.wait()


def _namespace(name: str) -> Namespace:
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
    keeper = subprocess.Popen(command, stdin=DEVNULL)
    here = Path("/proc/self/ns/net").readlink()
    wait_until(lambda: Path(f"/proc/{keeper.pid}/ns/net").readlink() != here)
    return Namespace(name, keeper)


def _plug(switch: Namespace, port: str, link: str, pid: str) -> None:
    """Make a cable: `port` at the switch, `link` where a process is."""
    switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", link, "netns", pid)
    switch.run("ip", "link", "set", port, "master", "switch", "up")
