#!/bin/sh
# Prints the command of a QEMU: Debian's newest, unpacked into a folder of its own and run with the libraries that came with it, or, where that
# can't be had, this system's, which is installed if it is missing and this is root. PAGEFERRY_QEMU names another one.
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/pageferry/qemu; remove that to get the newest one again.
set -eu
[ -z "${PAGEFERRY_QEMU:-}" ] || { echo "$PAGEFERRY_QEMU"; exit; }
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pageferry
folder=$cache/qemu
newest=$folder/qemu-system-x86_64
mkdir -p "$cache"
exec 9>"$cache/.qemu-lock"
flock 9
if [ ! -x "$newest" ]; then
    rm -rf "$folder"
    if "$here/unpack-debian.sh" sid "$folder/root" qemu-system-x86; then
        libraries=$folder/root/usr/lib/x86_64-linux-gnu
        # Some libraries lie in folders of their own.
        path=$libraries$(find "$libraries" -mindepth 2 -maxdepth 2 -name '*.so.*' -printf ':%h\n' | sort -u | tr -d '\n')
        cat >"$folder/wrapper" <<WRAPPER
#!/bin/sh
QEMU_MODULE_DIR=$libraries/qemu exec $libraries/ld-linux-x86-64.so.2 --library-path $path $folder/root/usr/bin/qemu-system-x86_64 -L $folder/root/usr/share/qemu -L $folder/root/usr/share/seabios "\$@"
WRAPPER
        chmod +x "$folder/wrapper"
        if "$folder/wrapper" --version >&2; then mv "$folder/wrapper" "$newest"; fi
    fi
fi
[ ! -x "$newest" ] || { echo "$newest"; exit; }
command -v qemu-system-x86_64 >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 seabios >&2
echo qemu-system-x86_64
