#!/bin/sh
# packages.sh NAME...: installs Debian packages and what they depend on, nothing recommended.
set -eu

command -v apt-get >/dev/null || { echo "the image has no apt-get" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export APT_CONFIG=/tmp/pratai/apt/apt.conf
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mkdir -p /tmp/sources.d
sh /tmp/pratai/recipes/sources.sh "${suite:-stable}" /tmp/sources.d

# Services are not started in a build.
policy=
if [ ! -e /usr/sbin/policy-rc.d ]; then
	policy=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 0755 $policy
fi
apt-get -qq update
apt-get -y -q --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
	-o Dpkg::Use-Pty=0 -o APT::Keep-Downloaded-Packages=false install -- "$@"
[ -z "$policy" ] || rm -f $policy
apt-get clean
rm -rf /var/lib/apt/lists/*
mkdir -p /var/lib/apt/lists/partial
sh /tmp/pratai/recipes/tidy.sh
