"""What replies say of the texts that TEXT_STORAGE keeps, or why they show none."""

from __future__ import annotations

from typing import Literal

TextState = Literal["shown", "not_kept", "needs_scope_feedback"]
HOW_TO_KEEP = "To keep them for a while, set TEXT_STORAGE=full and, say, TEXT_RETENTION_DAYS=7"
NEEDS_FEEDBACK = "Texts are shown to API keys that may also label: those with the scope feedback."
