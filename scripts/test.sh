#!/bin/sh
# Sets up as quickstart.sh does and runs the fast tests; arguments go on to pytest, e.g. -m slow.
set -eu
cd "$(dirname "$0")/.."
extras=dev,report,onnx
. scripts/setup_venv.sh
# one process a core: each test computes on one thread
exec .venv/bin/python -m pytest -m "not slow" -n auto --dist worksteal "$@"
