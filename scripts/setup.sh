#!/usr/bin/env bash
# Create the virtual environment and install the project into it at its pinned versions (`make setup`).
set -euo pipefail
python=$1 venv=$2 extras=$3

fail() { echo "setup: $1" >&2; exit 1; }

command -v "$python" >/dev/null ||
  fail "'$python' was not found. Set a Python 3.10 or newer: make setup PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$("$python" -V 2>&1) is too old; oneturn needs 3.10 or newer. Set one: make setup PYTHON=python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python can't create virtual environments. On Debian and Ubuntu: apt-get install python3-venv"

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  echo "setup 1/2: using $venv ($("$venv/bin/python" -V))"
else
  echo "setup 1/2: creating $venv ($("$python" -V))"
  "$python" -m venv --clear "$venv"
fi

echo "setup 2/2: installing the versions in constraints.txt (about 200 packages; some minutes the first time)"
"$venv/bin/python" -m pip install --progress-bar off -c constraints.txt -e ".[$extras]" | awk '
  /^Collecting /                     { if (++n % 40 == 0) { print "  " n " packages found"; fflush() } }
  /^Installing collected packages/   { print "  installing " NF - 3 " packages"; fflush() }'
echo "setup: ready. Next: make demo"
