#!/bin/sh
# The lowest layer of a Debian image, in two sandboxes of a build:
#
#   fetch SUITE    in the image "host": mmdebstrap resolves, fetches, verifies and extracts the
#                  packages into /target, and runs nothing of them (it never enters /target)
#   configure      with what was extracted as its root: dpkg installs them, as debootstrap does
#
# So no chroot is needed, and no mount: each sandbox has /proc and /dev of its own.
set -eu

apt=/tmp/pratai/apt

fetch() {
	mkdir -p /tmp/sources.d
	sh /tmp/pratai/recipes/sources.sh "$1" /tmp/sources.d
	# Links before anything is extracted: /bin and the others are in /usr.
	links="bin sbin lib"
	case $(dpkg --print-architecture) in
	amd64 | ppc64el | loong64) links="$links lib64" ;;
	esac
	for name in $links; do
		mkdir -p /target/usr/$name
		ln -s usr/$name /target/$name
	done
	mmdebstrap --quiet --mode=root --variant=extract --format=directory \
		--skip=check/empty,check/signed-by,cleanup/apt/cache,output/dev,output/mknod \
		--aptopt="$apt/fetch.conf" --aptopt="Dir::Etc::netrcparts \"$apt/auth/\"" \
		--aptopt="Dir::Etc::trustedparts \"$apt/trusted.gpg.d/\"" \
		--include='?essential' --include=apt --include=ca-certificates --include='?exact-name(usr-is-merged)' "$1" /target /tmp/sources.d/*
}

configure() {
	export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
	# Nothing of the machine's stays: neither its sources and settings, nor its name.
	rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap \
		/etc/resolv.conf /etc/hostname
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 0755 /usr/sbin/policy-rc.d
	dpkg --force-depends --force-unsafe-io --install /var/cache/apt/archives/*.deb
	dpkg --configure --pending
	rm -f /usr/sbin/policy-rc.d
	rm -rf /var/cache/apt/archives /var/lib/apt/lists
	mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
	sh /tmp/pratai/recipes/tidy.sh
}

"$@"
