"""`make serve`: models and schema, whatever the databases are, then `bentoml serve`."""

from __future__ import annotations

import os
import sys

from core.gc import paused_gc
from core.paths import ROOT
from core.setting_checks import settings_for_serving
from serving.forking import fork_server
from serving.worker import UNUSED_ANYWHERE, leave_out


def launch() -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        SystemExit: with the exit code.
        KeyboardInterrupt: Ctrl-C came before the service had started.
    """
    settings = settings_for_serving()
    # A worker's imports go on beside those below and the start of the databases.
    fork_server()
    with paused_gc():
        from serving.preflight import check_addresses, check_machine

        os.chdir(ROOT)
        check_machine(settings)
        check_addresses([(settings.host, settings.port)])
        leave_out(UNUSED_ANYWHERE)
        from serving.embedded.start import migrate
        from serving.embedded.starters import save_missing_models

    # `bentoml serve` itself does what goes with private databases.
    if settings.has_database_urls:
        save_missing_models(settings)
    if settings.database_url is not None:
        migrate(settings.sqlalchemy_url())
    with paused_gc():
        # Imported here: it takes a second, which a wrong setting should not cost. The other
        # commands of BentoML import its cloud.
        import click
        from bentoml_cli.serve import serve_command

    # A worker asks for the same module as the command of BentoML.
    sys.path.insert(0, str(ROOT))
    try:
        # By itself it would make Ctrl-C a failure like any other.
        code = serve_command.main(
            ["serve", "service:SentimentService"], prog_name="bentoml", standalone_mode=False
        )
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from error
    raise SystemExit(code)
