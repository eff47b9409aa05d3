"""The settings of a command that works on the databases of a service."""

from __future__ import annotations

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
    from serving.embedded.found import OtherUser, with_private_databases

    try:
        found = with_private_databases(settings)
    except OtherUser as error:
        raise SettingsError(f"DATABASE_URL is not set, and {error}") from error
    if found.database_url is None:
        raise MissingSetting(
            f"DATABASE_URL is not set, and no private PostgreSQL runs in {settings.data_folder}. "
            "Start the service (`make serve`), or set DATABASE_URL to "
            "postgresql://user:password@host/db, as the service has it"
        )
    titles = [
        title
        for title, before, after in (
            ("PostgreSQL", settings.database_url, found.database_url),
            ("Redis", settings.redis_url, found.redis_url),
        )
        if before is None and after is not None
    ]
    if titles:
        note(f"using the private {' and '.join(titles)} of {settings.data_folder}")
    return found
