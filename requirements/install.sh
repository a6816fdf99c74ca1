#!/bin/sh
# Puts the locked packages of requirements/<set>.txt into .venv, which it makes when it is missing.
# The file names every package, so dependencies are not resolved again.
# Usage: install.sh PYTHON SET
set -eu
python=$1
locked=requirements/$2.txt

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Spendgate needs Python 3.11 or newer; '$python' is not (set PYTHON=/path/to/python3.11)." >&2
    exit 1
fi

if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || uv venv --quiet --python "$python" .venv
    echo "Installing $locked ..."
    exec uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r "$locked"
fi

if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "Python's venv module is incomplete: apt-get install python3-venv (or install uv)." >&2
        exit 1
    fi
fi
echo "Installing $locked (with uv installed this would take seconds) ..."
exec .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --require-hashes --only-binary :all: -r "$locked"
