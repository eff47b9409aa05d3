"""How the system says that a disk, or a user's part of it, is full."""

from __future__ import annotations

import errno

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Or that a file may not be so large.
NO_ROOM = (*FULL_DISK, errno.EFBIG)
