#!/bin/sh
# Print the newest Python that the project supports and that can make a virtual environment.
# Arguments: the commands to try instead of those on the path.
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
without_venv=
for python in ${*:-python3.14 python3.13 python3.12 python3.11 python3}; do
    # pyenv has commands on the path for Pythons that are not active: they fail.
    "$python" -c "$supported" 2>/dev/null || continue
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v "$python"
        exit
    fi
    without_venv=${without_venv:-$python}
done
if [ -n "$without_venv" ]; then
    echo "$without_venv has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2
elif [ $# -gt 0 ]; then
    echo "Python 3.11, 3.12, 3.13 or 3.14 is needed. PYTHON=$* is none of them, or does not run." >&2
else
    echo "Python 3.11, 3.12, 3.13 or 3.14 is needed. None is on the path; PYTHON=COMMAND names one." >&2
fi
exit 1
