"""Makes the build that could follow on this one: another column, setting and field of the wire."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from core.paths import ROOT
from migrations.compatibility import scripts

REVISION = "next"
# What the next build writes into its column, and what it adds to the runner's replies.
NAME = "the next build"
MIGRATION = '''
"""The next build stores its name."""

from alembic import op

revision = "{revision}"
down_revision = "{newest}"
branch_labels = None
depends_on = None
SERVES_SINCE = "{newest}"


def upgrade() -> None:
    op.execute("ALTER TABLE predictions ADD COLUMN build text")


def downgrade() -> None:
    op.execute("ALTER TABLE predictions DROP COLUMN build")
'''
# A file, the pattern of a line, and what is added after each such line. Results go over the wire
# as a reply of HTTP and as a message of a stream: both change.
ADDED = (
    ("core/types.py", r"    assignment: Assignment \| None = None\n", 'build: str = "{name}"'),
    ("analytics/tables.py", r'    Column\("text", Text\),\n', 'Column("build", Text),'),
    ("core/settings.py", r"    port: int = Field\(3000, .*\n", 'next: str = ""'),
    ("runners/wire.py", r"    results: Annotated\[.*\n", 'build: str = "{name}"'),
)


def make_next_build(folder: Path) -> Path:
    """Copy this checkout to `folder` and change it; return the folder."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name, line, added in ADDED:
        source, after = (folder / name).read_text(), rf"\1    {added.format(name=NAME)}\n"
        changed, times = re.subn(f"^({line})", after, source, flags=re.MULTILINE)
        assert times, f"{name} has no line {line!r}"
        (folder / name).write_text(changed)
    migration = MIGRATION.format(revision=REVISION, newest=scripts().get_current_head())
    (folder / "migrations" / "versions" / f"{REVISION}.py").write_text(migration)
    return folder
