#!/bin/sh
# From a fresh clone to a results table: makes .venv, installs the package, runs the whole chain on the
# embedded digits. Arguments go on to scripts.quickstart, e.g. --precision fp32.
set -eu
cd "$(dirname "$0")/.."
extras=report
. scripts/setup_venv.sh
exec .venv/bin/python -m scripts.quickstart "$@"
