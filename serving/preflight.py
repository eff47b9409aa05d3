"""What happens before the first worker starts; a failure ends the start with one line.

A worker that cannot start is replaced for ever. So the start itself finds every fault that does
not heal by itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from core.api_keys import parse_key_file
from core.key_ring import read_key_file
from core.private_files import close_to_others
from core.settings import Settings, SettingsError

Address = tuple[str, int]
# The private databases look after their own folders.
PRIVATE_DATA = ("spool", "models", "rollout.json")


def accept_both_families(listener: socket.socket) -> None:
    """Let a socket of IPv6 that will listen on all addresses take those of IPv4 too.

    The system's default, which an operator can change (net.ipv6.bindv6only), decides otherwise.
    """
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


def check_addresses(addresses: Iterable[Address]) -> None:
    """Check that the service can listen on its addresses.

    Raises:
        SystemExit: it cannot.
    """
    for host, port in addresses:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            accept_both_families(listener)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise SystemExit(
                    f"port {port} of {host} cannot be used ({error.strerror}); set PORT or HOST"
                ) from None


def prepare_api(settings: Settings, address: Address) -> Mapping[str, str]:
    """Start what the API lacks, and return what its workers' environment has to add.

    Raises:
        SystemExit: the API could not work.
    """
    _check_data_folder(settings.data_folder)
    if settings.api_keys_file is not None:
        _check_key_file(settings.api_keys_file)
    # The image does without.
    if find_spec("serving.embedded"):
        from serving.embedded.start import prepare

        return prepare(settings, address)
    try:
        settings.sqlalchemy_url()
        settings.redis_connection_url()
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    return {}


def _check_data_folder(folder: Path) -> None:
    try:
        # The private PostgreSQL, if it is another user's, has to enter it.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"DATA_FOLDER: {folder} cannot be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SystemExit(f"DATA_FOLDER: {folder} cannot be written to")
    for name in PRIVATE_DATA:
        close_to_others(folder / name)


def _check_key_file(file: Path) -> None:
    try:
        _, faults = parse_key_file(read_key_file(file).decode(errors="replace"))
    except OSError as error:
        raise SystemExit(f"API_KEYS_FILE: {file} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise SystemExit(f"API_KEYS_FILE: {error}") from None
    if faults:
        raise SystemExit(f"API_KEYS_FILE: {'; '.join(faults)}")
