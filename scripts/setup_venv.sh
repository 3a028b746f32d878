# Sourced by quickstart.sh and test.sh: makes .venv and installs the package with the extras named in $extras.
# A second call with the same setup.py and extras installs nothing.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "error: Python 3.10 or newer is needed, as $python" >&2
    echo "hint: install it, or name another one: PYTHON=python3.12 $0" >&2
    exit 2
fi
if [ ! -x .venv/bin/python ]; then
    echo "== making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "error: $python -m venv failed" >&2
        echo "hint: on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 2
    fi
fi
wanted="$extras $(cksum < setup.py)"
if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing the package and what it needs, [$extras] (torch is large: some minutes)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]" || exit 2
    echo "$wanted" > ".venv/installed-$extras"
else
    echo "== already installed"
fi
