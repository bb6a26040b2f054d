#!/bin/sh
# Unpacks packages of another Debian suite, with the libraries they need, into a folder: nothing of this system changes. Run what is in there by the
# folder's own loader: eng/unpack-debian.sh SUITE FOLDER PACKAGE...
# Packages come from the Debian mirror that this system uses and are checked with its keys. Ends with 0, or says what could not be had and ends with 1.
set -eu
suite=$1 folder=$2
shift 2

find_mirror() { mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort -u | head -n 1); }
find_mirror
# A system whose lists were never fetched names no mirror yet.
[ -n "$mirror" ] || { apt-get update -qq >&2 && find_mirror; }
[ -n "$mirror" ] || { echo "unpack-debian: apt has no mirror to fetch $* of $suite from. Add a Debian mirror to /etc/apt/sources.list." >&2; exit 1; }
echo "unpack-debian: fetches $* of Debian $suite from $mirror" >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
: >"$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
# Nothing counts as installed, so everything that a package needs is fetched with it.
apt="apt-get -qq -o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$work/lists
    -o Dir::State::status=$work/status -o Dir::Cache=$work/cache -o APT::Sandbox::User=$(id -un) -o Acquire::Languages=none -o Acquire::Retries=2"
$apt --error-on=any update >"$work/log" 2>&1 && $apt install -y --no-install-recommends --download-only "$@" >>"$work/log" 2>&1 || {
    echo "unpack-debian: $* of $suite could not be fetched: $(tail -n 2 "$work/log" | tr '\n' ' ')" >&2
    exit 1
}
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder"; done
