# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What make-guest and make-proxy share: kernels and initramfs out of packages of the distribution,
# fetched by apt-get download (with apt's own configuration) and unpacked in a cache folder; nothing
# is installed. The caller sets $self, its own name for messages.
#
#   enter CACHE_DIR        go there, alone
#   is_up_to_date INITRD FILE...     newer than the files, this one, and the kernel
#   fetch_kernel           $kernel: its unpacked package; also leaves ./vmlinuz
#   fetch PACKAGE          unpack it into ./PACKAGE
#   add_libraries ROOT PROGRAM...    from this machine
#   add_modules ROOT MODULE...       and what they need; then modprobe works in there
#   write_initrd ROOT FILE

# Several tests may want it at once.
enter() {
    mkdir -p "$1"
    cd "$1"
    exec 9>lock
    flock 9
}

is_up_to_date() {
    local initrd=$1 file
    shift
    [ -s "$initrd" ] && [ -s vmlinuz ] || return 1
    for file in vmlinuz "${BASH_SOURCE[0]}" "$@"; do
        [ "$initrd" -nt "$file" ] || return 1
    done
}

cannot() {
    echo "$self: $*" >&2
    exit 77
}

fetch() {
    [ ! -e "$1/.done" ] || return 0
    rm -rf "$1" "$1"_*.deb
    apt-get download -q "$1" >fetch.log 2>&1 || {
        cat fetch.log >&2
        cannot "cannot fetch package $1"
    }
    dpkg-deb -x "$1"_*.deb "$1"
    rm -f "$1"_*.deb
    touch "$1/.done"
}

fetch_kernel() {
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '/Depends: linux-image-/ { print $2; exit }')
    # After a first build it is here, and apt need not know of it any more.
    if [ -z "$kernel" ]; then
        for kernel in linux-image-*-cloud-amd64; do :; done
        [ -d "$kernel" ] || cannot "apt knows no linux-image-cloud-amd64; run apt-get update"
    fi
    fetch "$kernel"
    # Whatever is older than the kernel has the modules of another one.
    cmp -s "$kernel"/boot/vmlinuz-* vmlinuz || {
        cp "$kernel"/boot/vmlinuz-* vmlinuz.tmp
        mv vmlinuz.tmp vmlinuz
    }
}

add_libraries() {
    local root=$1 library
    shift
    ldd "$@" >libraries
    ! grep 'not found' libraries >&2 || cannot "libraries of the guest are missing on this machine"
    awk '$2 == "=>" { print $3 } $1 ~ /^\/.*[^:]$/ { print $1 }' libraries | sort -u |
        while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -L "$library" "$root$library"
        done
}

add_modules() {
    local root=$1 version modules name
    shift
    version=$(basename "$kernel"/lib/modules/*)
    modules=lib/modules/$version
    [ -s "$kernel/$modules/modules.dep" ] || busybox-static/bin/busybox depmod -b "$kernel" "$version"
    awk -v wanted="$*" '
        function add(path,    i, n, needed) {
            if (path in done)
                return
            done[path] = 1
            print path
            n = split(needs[path], needed, " ")
            for (i = 1; i <= n; i++)
                add(needed[i])
        }
        {
            path = $1
            sub(/:$/, "", path)
            name = path
            gsub(/.*\/|\.ko$/, "", name)
            gsub(/-/, "_", name)
            $1 = ""
            needs[path] = $0
            path_of[name] = path
        }
        END {
            n = split(wanted, names, " ")
            for (i = 1; i <= n; i++) {
                if (!(names[i] in path_of))
                    exit 1
                add(path_of[names[i]])
            }
        }' "$kernel/$modules/modules.dep" >modules || cannot "this kernel lacks one of the modules $*"
    while read -r name; do
        mkdir -p "$root/$modules/$(dirname "$name")"
        cp "$kernel/$modules/$name" "$root/$modules/$name"
    done <modules
    busybox-static/bin/busybox depmod -b "$root" "$version"
}

write_initrd() {
    local cpio=$PWD/busybox-static/bin/busybox
    (cd "$1" && find . | "$cpio" cpio -o -H newc 2>/dev/null) >"$2.tmp"
    mv "$2.tmp" "$2"
}
