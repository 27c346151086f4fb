#!/bin/sh
# unpack-debian.sh [--with-dependencies] FOLDER PACKAGE...: unpack Debian packages into a folder,
# without root; with the packages they need and this machine lacks, if asked to.
# Where the system has no package lists (fresh containers), fetches lists of its own.
set -eu
export LC_ALL=C
dependencies=
if [ "$1" = --with-dependencies ]; then
    dependencies=yes
    shift
fi
folder=$1
shift
command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1 || {
    echo "this system has no apt-get and dpkg" >&2
    exit 1
}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
own=

# shellcheck disable=SC2086  # $own is a list of options
fetch() {
    if [ -n "$dependencies" ]; then
        plan=$(apt-get $own -qq install --simulate --reinstall --no-install-recommends "$@")
        # shellcheck disable=SC2046  # a list of names
        set -- $(printf '%s\n' "$plan" | awk '/^Inst/ {print $2}')
    fi
    apt-get $own -qq download "$@"
}

if ! (fetch "$@") >/dev/null 2>&1; then
    mkdir -p apt/lists/partial apt/cache/archives/partial
    own="-o Dir::State::lists=$work/apt/lists -o Dir::Cache=$work/apt/cache -o APT::Sandbox::User= -o Debug::NoLocking=1"
    # shellcheck disable=SC2086
    apt-get $own -qq update && fetch "$@" >/dev/null
fi
for package in ./*.deb; do
    dpkg -x "$package" "$folder"
done
