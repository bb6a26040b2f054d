#!/bin/sh
# Gets the two CRIUs that the tests run beside, 4.1 of Debian trixie and 4.2 of forky, and prints the commands that start them, a line each.
# The system's own CRIU is not touched: Debian 12's does not start on newer kernels, and a page server of one of these two does not understand the other.
# They are kept in ${XDG_CACHE_HOME:-~/.cache}/pageferry/criu; remove a folder there to get the newest one again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pageferry/criu
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9

# get_criu VERSION SUITE
get_criu() {
    command=$cache/criu-$1
    if [ ! -x "$command" ]; then
        rm -rf "${cache:?}/$2"
        "$here/unpack-debian.sh" "$2" "$cache/$2" criu
        libraries=$cache/$2/usr/lib/x86_64-linux-gnu
        cat >"$cache/.new" <<WRAPPER
#!/bin/sh
exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries $cache/$2/usr/sbin/criu "\$@"
WRAPPER
        chmod +x "$cache/.new"
        version=$("$cache/.new" --version | sed -n 's/^Version: //p')
        case $version in
            "$1" | "$1".*) ;;
            *) echo "get-criu: Debian $2 has CRIU $version, not $1." >&2; exit 1 ;;
        esac
        mv "$cache/.new" "$command"
    fi
    echo "$command"
}

get_criu 4.1 trixie
get_criu 4.2 forky
