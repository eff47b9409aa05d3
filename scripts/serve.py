"""Serves everything from one command: models, databases, migrations, then `bentoml serve`."""

from __future__ import annotations

import sys

from serving.embedded.launcher import main

if __name__ == "__main__":
    sys.exit(main())
