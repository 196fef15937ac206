#!/usr/bin/env bash
# Runs the integration tests with the virtual environment's programs in $1.
# Installs what they need from Debian's packages when it can, and names what is missing.
set -u
bin=$1
shift

packages=""
command -v etcd >/dev/null && command -v etcdctl >/dev/null || packages="etcd-server etcd-client"
command -v go >/dev/null || packages="$packages golang-go"
command -v strace >/dev/null || packages="$packages strace"
command -v mkfs.ext4 >/dev/null || packages="$packages e2fsprogs"
command -v mount >/dev/null || packages="$packages mount"
# For Patroni, which runs as a user that can read Debian's own Python.
has_postgresql() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
has_venv() { /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_postgresql || packages="$packages postgresql"
has_venv || packages="$packages python3 python3-venv"
if [ -n "$packages" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing $packages"
  apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
  # The package starts a server of its own; the tests start theirs.  (So does that of
  # PostgreSQL; nothing depends on whether it runs.)
  command -v systemctl >/dev/null && systemctl stop etcd 2>/dev/null
fi
for program in etcd:etcd-server etcdctl:etcd-client strace:strace mkfs.ext4:e2fsprogs mount:mount; do
  command -v "${program%:*}" >/dev/null ||
    echo "missing: ${program%:*} (Debian package: ${program#*:})"
done
has_postgresql || echo "missing: PostgreSQL in /usr/lib/postgresql (Debian package: postgresql)"
has_venv || echo "missing: /usr/bin/python3 with venv (Debian package: python3-venv)"
# etcd's own packages, beside which raftwal is tested, say which go they need.
wanted=$(sed -n 's/^go //p' integration/etcd/go.mod)
found=$(command -v go >/dev/null && GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  echo "missing: go >= $wanted (there is ${found:-none}; Debian package: golang-go, perhaps too old)"
fi
# Only where there is a wheel: to build it takes a compiler of its own, and long.
"$bin/pip" install --quiet --disable-pip-version-check --only-binary :all: 'atheris>=2.3' ||
  echo "missing: atheris (no wheel for this Python); the fuzzing runs without its guidance"
[ "$(id -u)" = 0 ] || echo "missing: root, to mount file systems that can be filled and cut off"

exec "$bin/pytest" integration -o timeout=900 -s "$@"
