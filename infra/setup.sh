#!/bin/sh
# Makes the virtual environment: locked versions, hashes checked, no root.
set -eu

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

command -v "$PYTHON" >/dev/null 2>&1 || fail "$PYTHON not found: install Python 3.11 or later, or name one: make setup PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    fail "Python 3.11 to 3.13 is needed, $("$PYTHON" -V) found: name another with make setup PYTHON=/path/to/python3"

free_kb=$(df -Pk . | awk 'NR==2 {print $4}')
[ -x "$VENV/bin/zenthos" ] || [ "$free_kb" -gt 5000000 ] ||
    fail "the environment needs 5 GB, $((free_kb / 1024)) MB are free here: make room and try again"

# Debian leaves ensurepip out of python3; its pip wheel unpacks without root.
make_environment() {
    if "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        "$PYTHON" -m venv --clear "$VENV"
        return
    fi
    "$PYTHON" -m venv --clear --without-pip "$VENV"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    sh infra/unpack-debian.sh "$work" python3-pip-whl ||
        fail "this Python has no ensurepip and its package cannot be had: install python3-venv and try again"
    wheel=$(echo "$work"/usr/share/python-wheels/pip-*.whl)
    "$VENV/bin/python" "$wheel/pip" install -q --no-index "$wheel"
}

# pip tells too much or nothing: on a terminal, one line counts what it has fetched.
install_locked() {
    set -- "$VENV/bin/pip" install --disable-pip-version-check --require-hashes -r requirements.txt
    [ -t 2 ] || { "$@" --quiet; return; }
    { "$@" --progress-bar off || echo FAILED; } | {
        fetched=0
        while read -r word rest; do
            case $word in
            Collecting) fetched=$((fetched + 1)); printf '  %s packages fetched\r' "$fetched" ;;
            Installing) printf '  %s packages fetched, unpacking them …\r' "$fetched" ;;
            Successfully) printf '\033[K' ;;
            FAILED) exit 1 ;;
            esac
        done
    } >&2
}

if [ ! -x "$VENV/bin/pip" ]; then
    say "setup: making $VENV"
    make_environment
fi
say "setup: installing the locked packages (about 1 GB to download the first time, 3 GB on disk) …"
install_locked || fail "the packages could not be installed: mend what is said above and try again"
"$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
say "setup: done"
