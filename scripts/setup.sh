#!/bin/sh
# Find a Python that the pinned packages support, then let setup.py make .venv with it.
# Usage: scripts/setup.sh [EXTRA ...]; PYTHON=<interpreter> takes that one and no other.

is_supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$is_supported" 2>/dev/null; then
        exec "$candidate" "$(dirname "$0")/setup.py" "$@"
    fi
done

echo "setup: no Python 3.11 to 3.14 found (tried: ${PYTHON:-python3, python3.14 ... python3.11});" \
    "on Debian or Ubuntu: apt-get install python3 python3-venv" >&2
exit 2
