#!/bin/sh
# Installs what `npm run bench -- --peers` and `--only download` compare Millrace with, and says what it could not install.
# Debian packages need root (or sudo); npm packages go to bench/node_modules. No service is started.
cd "$(dirname "$0")" || exit 1
missing=""
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo

has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

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

package redis-server redis-server
package beanstalkd beanstalkd
package nats-server nats-server
package python3 python3
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
