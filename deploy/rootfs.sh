#!/usr/bin/env bash
# Puts the files of the image together: deploy/rootfs.sh BINARY DIRECTORY
# Libraries and certificates are those of the system on which the binary was built.
set -euo pipefail
binary=$1 root=$2

rm -rf "$root"
install -d "$root/usr/bin" "$root/usr/share/akis" "$root/etc/akis" "$root/etc/ssl/certs"

# Symbols stay, so that a panic names its functions; lines of code are left out.
strip --strip-debug -o "$root/usr/bin/akis" "$binary"
chmod 755 "$root/usr/bin/akis"

# `ldd` names them as "libc.so.6 => /lib/…/libc.so.6 (0x…)", and the loader as "/lib64/ld-….so.2 (0x…)".
ldd "$binary" | grep -oE '/[^ ]+' | while IFS= read -r library; do
  install -D -m 755 "$(realpath "$library")" "$root$library"
done

# The host file before DNS, as everywhere; without this file glibc asks DNS first.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp LICENSE "$root/usr/share/akis/"
deploy/sbom.py >"$root/usr/share/akis/sbom.cdx.json"
chmod -R u=rwX,go=rX "$root"
