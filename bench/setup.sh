#!/bin/sh
# Installs what `npm run bench -- --peers` and `--only download` compare Millrace with, and says what it could not install.
# Debian packages need root (or sudo); npm packages go to bench/node_modules. No service is started.
cd "$(dirname "$0")" || exit 1
missing=""
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

# Debian keeps PostgreSQL's programs in a folder for each version.
has() {
  PATH="$PATH:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')" command -v "$1" >/dev/null 2>&1
}

# Without this, Debian starts each server when it is installed.
policy=/usr/sbin/policy-rc.d
made=""
quiet() {
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null && $sudo chmod 755 "$policy" && made=1
}
unquiet() { [ -z "$made" ] || $sudo rm -f "$policy"; made=""; }
trap unquiet EXIT

updated=""
package() { # PROGRAM PACKAGE
  has "$1" && return
  if ! has apt-get; then
    missing="$missing $2"
    return
  fi
  quiet
  if [ -z "$updated" ]; then
    $sudo apt-get update -qq
    updated=1
  fi
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
  has "$1" || missing="$missing $2"
}

# NATS: fast batches are in 2.14 and later. Where this machine's is older, that of Debian testing is unpacked into
# bench/programs, not installed: apt-get fetches it from where the machine has its packages, and checks it with Debian's keys.
nats_new() { # PROGRAM
  "$1" --version 2>/dev/null | sed 's/.*: v//' | awk -F. '{ new = $1 > 2 || ($1 == 2 && $2 >= 14) } END { exit !new }'
}
nats() {
  for program in programs/usr/sbin/nats-server "$(PATH="$PATH:/usr/sbin" command -v nats-server)"; do
    [ -n "$program" ] && nats_new "$program" && return
  done
  sources=/etc/apt/sources.list.d/debian.sources
  if ! has apt-get || ! has dpkg-deb || [ ! -e "$sources" ]; then
    missing="$missing nats-server-2.14"
    return
  fi
  work=$(mktemp -d)
  mkdir -p "$work/sources" "$work/lists/partial" "$work/cache/archives/partial" programs
  # The first paragraph is Debian itself, the next its security updates.
  awk 'BEGIN { RS = "" } NR == 1 { sub(/Suites:[^\n]*/, "Suites: testing"); print }' "$sources" \
    >"$work/sources/testing.sources"
  testing() {
    apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/sources" \
      -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
  }
  testing update && (cd "$work" && testing download nats-server) && dpkg-deb -x "$work"/nats-server_*.deb programs
  rm -rf "$work"
  nats_new programs/usr/sbin/nats-server || missing="$missing nats-server-2.14"
}

package redis-server redis-server
package beanstalkd beanstalkd
package python3 python3
package initdb postgresql
nats
package scrapy python3-scrapy
package nginx nginx-light
package curl curl
package aria2c aria2
package wget wget
npm install --no-package-lock --no-audit --no-fund || missing="$missing npm-packages"

if [ -n "$missing" ]; then
  echo "bench/setup.sh: could not install:$missing" >&2
  exit 1
fi
echo "bench/setup.sh: all peers are installed"
