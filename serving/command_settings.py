"""The settings of a command that works on the databases of a service."""

from __future__ import annotations

from pydantic import SecretStr

from core.command_output import note
from core.settings import MissingSetting, Settings, SettingsError, get_settings
from serving.machine_check import has_private_databases


def settings_for_databases() -> Settings:
    """Read the settings; private databases that run in DATA_FOLDER take the place of unset URLs.

    A note on stderr says so. REDIS_URL stays unset if no private Redis runs.

    Raises:
        SettingsError: a setting is invalid, or DATABASE_URL is unset and no private PostgreSQL of
            this user runs.
    """
    settings = get_settings()
    if settings.has_database_urls or not has_private_databases():
        settings.sqlalchemy_url()
        return settings
    # Imported here: the image does without.
    from serving.embedded.found import OtherUser, find_postgres, find_redis

    folder, found = settings.data_folder, {}
    if settings.database_url is None:
        try:
            url = find_postgres(folder / "postgres")
        except OtherUser as error:
            raise SettingsError(f"DATABASE_URL is not set, and {error}") from error
        if url is None:
            raise MissingSetting(
                f"DATABASE_URL is not set, and no private PostgreSQL runs in {folder}. Start the "
                "service (`make serve`), or set DATABASE_URL to "
                "postgresql://user:password@host/db, as the service has it"
            )
        found["database_url"] = SecretStr(url.render_as_string(hide_password=False))
    if settings.redis_url is None and (redis := find_redis(folder / "redis")) is not None:
        found["redis_url"] = SecretStr(redis)
    servers = " and ".join(
        title
        for name, title in (("database_url", "PostgreSQL"), ("redis_url", "Redis"))
        if name in found
    )
    if servers:
        note(f"using the private {servers} of {folder}")
    return settings.model_copy(update=found)
