#!/bin/sh
# Prints the command of a QEMU: Debian's newest, unpacked into a folder of its own and run with the libraries that came with it, or, where that
# can't be had, this system's, which is installed if it is missing. PAGEFERRY_QEMU names another one.
set -eu
[ -z "${PAGEFERRY_QEMU:-}" ] || { echo "$PAGEFERRY_QEMU"; exit; }
prefix=${TMPDIR:-/var/tmp}/pageferry-qemu
newest=$prefix/qemu-system-x86_64
if [ ! -x "$newest" ]; then
    rm -rf "$prefix"
    if "$(dirname "$0")/../../eng/unpack-debian.sh" sid "$prefix/root" qemu-system-x86; then
        libraries=$prefix/root/usr/lib/x86_64-linux-gnu
        # Some libraries lie in folders of their own.
        path=$libraries$(find "$libraries" -mindepth 2 -maxdepth 2 -name '*.so.*' -printf ':%h\n' | sort -u | tr -d '\n')
        cat >"$prefix/wrapper" <<WRAPPER
#!/bin/sh
QEMU_MODULE_DIR=$libraries/qemu exec $libraries/ld-linux-x86-64.so.2 --library-path $path $prefix/root/usr/bin/qemu-system-x86_64 -L $prefix/root/usr/share/qemu "\$@"
WRAPPER
        chmod +x "$prefix/wrapper"
        if "$prefix/wrapper" --version >&2; then mv "$prefix/wrapper" "$newest"; fi
    fi
fi
[ ! -x "$newest" ] || { echo "$newest"; exit; }
command -v qemu-system-x86_64 >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 >&2
echo qemu-system-x86_64
