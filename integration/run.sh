#!/usr/bin/env bash
# Runs the integration tests with the virtual environment's programs in $1.
# Installs what they need from Debian's packages when it can, and names what is missing.
set -u
bin=$1
shift

packages="etcd-server etcd-client"
if ! command -v etcd >/dev/null || ! command -v etcdctl >/dev/null; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "installing $packages"
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
    # The package starts a server of its own; the tests start theirs.
    command -v systemctl >/dev/null && systemctl stop etcd 2>/dev/null
  fi
fi
for program in etcd etcdctl; do
  command -v "$program" >/dev/null || echo "missing: $program (Debian packages: $packages)"
done
[ "$(id -u)" = 0 ] || echo "missing: root, to mount a small file system that can be filled"

exec "$bin/pytest" integration -o timeout=900 -s "$@"
