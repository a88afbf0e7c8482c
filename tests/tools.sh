#!/bin/sh
# Installs the programs that tests compare with, where they are missing; fails loudly where it cannot.
set -eu
missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need sqlite3 sqlite3
need sha256sum coreutils
need chromium chromium
need redis-server redis-server
need openssl openssl
[ -x /usr/sbin/sshd ] || need sshd openssh-server
need ssh-agent openssh-client
[ -n "$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null)" ] || need initdb postgresql
[ -x /usr/sbin/pgbouncer ] || need pgbouncer pgbouncer
need cc gcc
need npm npm
if [ -n "$missing" ]; then
    echo "installing:$missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "these programs are needed by the tests and cannot be installed here:$missing" >&2
        exit 1
    fi
    run=""
    [ "$(id -u)" = 0 ] || run="sudo"
    $run apt-get update -qq
    # shellcheck disable=SC2086  the list is meant to be split
    DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq $missing
fi
# PostgreSQL in the versions that the operating system does not have
python="${VENV:-.venv}/bin/python"
[ -x "$python" ] || python=python3
"$python" "$(dirname "$0")/postgres_versions.py"
# a server that speaks Azure's protocol
(cd "$(dirname "$0")/.." && "$python" -m tests.azurite_release)
# what looks at pages for people who see or hear otherwise
(cd "$(dirname "$0")/.." && "$python" -m tests.axe_release)
