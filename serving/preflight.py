"""What happens before the first worker starts; a failure ends the start with one line.

A worker that cannot start is replaced for ever. So the start itself finds every fault that does
not heal by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from core.env_file import ENV_FILE
from core.private_files import close_to_others, keep_entries
from core.settings import Settings, SettingsError
from serving.database_check import UnusableDatabase, database_fault
from serving.file_limit import file_limit_problem
from serving.folder_check import (
    bentoml_home_problem,
    data_folder_problem,
    data_folder_warning,
    temporary_folder_problem,
)
from serving.machine_check import (
    address_problem,
    has_private_databases,
    key_file_problem,
    misspelt_settings,
    reserve_localhost,
    secrets_file_problem,
    tracing_problem,
    user_problem,
)
from serving.redis_check import UnusableRedis, redis_fault
from serving.spool_check import spool_problem

logger = logging.getLogger("bentoml.sentiment")

Address = tuple[str, int]
# The private databases look after their own folders.
PRIVATE_DATA = ("spool", "models", "rollout.json")


def check_addresses(addresses: Iterable[Address]) -> None:
    """Check that the service can listen on its addresses.

    Raises:
        SystemExit: it cannot.
    """
    for host, port in addresses:
        _end_with(address_problem(host, port))


def reserve_localhosts(addresses: Iterable[Address]) -> None:
    """Keep the other loopback addresses of the ports that the service will listen on."""
    for host, port in addresses:
        if problem := reserve_localhost(host, port):
            logger.warning("%s", problem)


def check_temporary_folder() -> None:
    """Check the folder in which BentoML makes its sockets before anything else.

    Raises:
        SystemExit: it cannot be used.
    """
    _end_with(temporary_folder_problem())


def check_machine(settings: Settings) -> None:
    """Check the folders and variables that every process of the service needs.

    Raises:
        SystemExit: one of them cannot be used.
    """
    _end_with(file_limit_problem())
    check_temporary_folder()
    _end_with(bentoml_home_problem())
    _end_with(tracing_problem(settings))


def prepare_api(settings: Settings, address: Address) -> Mapping[str, str]:
    """Start what the API lacks, and return what its workers' environment has to add.

    Raises:
        SystemExit: the API could not work.
    """
    data = settings.data_folder
    _end_with(data_folder_problem(data))
    keep_entries(data)
    if problem := data_folder_warning(data):
        # The folders of some systems, such as those of Windows in WSL, have these rights always.
        logger.warning("%s", problem)
    for name in PRIVATE_DATA:
        close_to_others(data / name)
    if settings.api_keys_file is not None:
        _end_with(key_file_problem(settings.api_keys_file))
    if problem := secrets_file_problem(ENV_FILE):
        # As above: in WSL, the files of Windows have these rights.
        logger.warning("%s", problem)
    if problem := misspelt_settings(ENV_FILE):
        logger.warning("%s", problem)
    has_private = has_private_databases()
    if not has_private:
        try:
            settings.sqlalchemy_url()
            settings.redis_connection_url()
        except SettingsError as error:
            raise SystemExit(str(error)) from None
    _end_with(user_problem(settings))
    _check_databases(settings)
    if settings.database_url is not None:
        _end_with(spool_problem(settings.spool_folder(), settings.sqlalchemy_url()))
    if not has_private:
        return {}
    from serving.embedded.start import prepare

    return prepare(settings, address)


def _check_databases(settings: Settings) -> None:
    """Log what the databases lack: predictions are served without them, and it may heal.

    Raises:
        SystemExit: a database is none that the service can ever use.
    """
    faults = []
    try:
        if settings.database_url is not None:
            faults.append(database_fault(settings.sqlalchemy_url()))
        if settings.redis_url is not None:
            faults.append(redis_fault(settings.redis_connection_url()))
    except (UnusableDatabase, UnusableRedis) as error:
        raise SystemExit(str(error)) from None
    for fault in faults:
        if fault is not None:
            logger.error("%s; the service starts all the same", fault)


def _end_with(problem: str | None) -> None:
    if problem is not None:
        raise SystemExit(problem)
