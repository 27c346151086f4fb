#!/bin/sh
# unpack-debian.sh FOLDER PACKAGE...: unpack Debian packages into a folder, without root.
# Where the system has no package lists (fresh containers), fetches lists of its own.
set -eu
folder=$1
shift
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || {
    echo "no apt-get here: install $* with this system's package manager" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get -qq download "$@" 2>/dev/null; then
    mkdir -p apt/lists/partial apt/cache/archives/partial
    own="-o Dir::State::lists=$work/apt/lists -o Dir::Cache=$work/apt/cache -o APT::Sandbox::User= -o Debug::NoLocking=1"
    # shellcheck disable=SC2086
    apt-get $own -qq update && apt-get $own -qq download "$@"
fi
mkdir -p "$folder"
for package in ./*.deb; do
    dpkg -x "$package" "$folder"
done
