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
# these would bring others that run all the time, so nothing comes with them that they only recommend
alone=""
command -v promtool >/dev/null 2>&1 || alone="$alone prometheus"
command -v prometheus-alertmanager >/dev/null 2>&1 || alone="$alone prometheus-alertmanager"
if [ -n "$missing$alone" ]; then
    echo "installing:$missing$alone"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "these programs are needed by the tests and cannot be installed here:$missing$alone" >&2
        exit 1
    fi
    run=""
    [ "$(id -u)" = 0 ] || run="sudo"
    # servers among them are started by the tests: none begins by being installed, or with the machine
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '$run rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | $run tee "$policy" >/dev/null
        $run chmod 755 "$policy"
    fi
    $run apt-get update -qq
    # shellcheck disable=SC2086  the lists are meant to be split
    [ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq $missing
    # shellcheck disable=SC2086
    [ -z "$alone" ] || DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $alone
    for service in $alone; do
        ! command -v systemctl >/dev/null 2>&1 || $run systemctl --quiet disable "$service"
    done
fi
# PostgreSQL in the versions that the operating system does not have
python="${VENV:-.venv}/bin/python"
[ -x "$python" ] || python=python3
"$python" "$(dirname "$0")/postgres_versions.py"
# a server that speaks Azure's protocol
(cd "$(dirname "$0")/.." && "$python" -m tests.azurite_release)
# what looks at pages for people who see or hear otherwise
(cd "$(dirname "$0")/.." && "$python" -m tests.axe_release)
# what says whether a dashboard is one
(cd "$(dirname "$0")/.." && "$python" -m tests.grafana_release)
