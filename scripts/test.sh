#!/bin/sh
# Sets up as quickstart.sh does and runs the fast tests; arguments go on to pytest, e.g. -m slow.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup_venv.sh dev,report
exec .venv/bin/python -m pytest -m "not slow" "$@"
