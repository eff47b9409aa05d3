"""Commands that an operator runs."""

import signal
import sys
from pathlib import PurePath

# Python has "-m" as the name of a program until it has found the module.
if (
    PurePath(sys.argv[0]).name in ("-m", "sentiment")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    # Ctrl-C while a command is imported ends it without a traceback; `run_command` takes it back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
