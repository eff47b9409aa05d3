"""What msgspec raises for a document that was damaged, or that somebody else wrote."""

from __future__ import annotations

import msgspec

# Text that is not UTF-8 raises UnicodeError, and nesting that is too deep RecursionError.
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
