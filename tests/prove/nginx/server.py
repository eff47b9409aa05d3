"""A real nginx with a configuration of docs/operations.md."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.paths import ROOT
from tests.waiting import wait_until

# Of one host, and of several.
ONE_HOST, SEVERAL_HOSTS = re.findall(
    r"```nginx\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL
)
MAIN = """
user {user}; daemon off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  log_format tries '$request_uri $status $upstream_addr';
  access_log {folder}/tries tries;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {server}
}}
"""


@contextmanager
def nginx(
    folder: Path, server: str, address: tuple[str, int], enter: Sequence[str] = ()
) -> Iterator[None]:
    """Run nginx with `server`, which listens on `address`, until the block ends.

    It writes into `folder`/tries where each request was sent to. `enter` is a command that becomes
    another one, elsewhere.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "install nginx"
    configuration = folder / "nginx.conf"
    configuration.write_text(MAIN.format(user=getpass.getuser(), folder=folder, server=server))
    process = subprocess.Popen([*enter, program, "-p", str(folder), "-c", str(configuration)])
    try:
        wait_until(lambda: _accepts(address))
        yield
    finally:
        process.terminate()
        process.wait()


def _accepts(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0
