#!/bin/sh
# Says what building, testing and running lack on this machine, and what would help.
# Exit 1 when something that is needed is missing.
set -u

bad=0
say() { printf '%-10s %s\n' "$1" "$2"; }
miss() { say missing "$1"; bad=1; }

for package; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)
	[ "$state" = installed ] || miss "package $package (make deps)"
done
[ $bad = 1 ] || say ok "all packages that building and testing need"

release=$(uname -r)
major=${release%%.*} rest=${release#*.}
minor=${rest%%[!0-9]*}
if [ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "${minor:-0}" -ge 1 ]; }; then
	say ok "Linux $release"
else
	miss "Linux 6.1 or newer (this is $release)"
fi

case $(stat -f -c %T /sys/fs/cgroup 2>/dev/null) in
cgroup2fs)
	say ok "cgroup v2: $(cat /sys/fs/cgroup/cgroup.controllers)"
	for c in memory pids cpu; do
		grep -qw $c /sys/fs/cgroup/cgroup.controllers || miss "the cgroup controller $c"
	done ;;
tmpfs)
	kind=v1
	[ "$(stat -f -c %T /sys/fs/cgroup/unified 2>/dev/null)" = cgroup2fs ] && kind=hybrid
	say ok "cgroup $kind"
	for c in memory pids cpu; do
		grep -q "^[^ ]* /sys/fs/cgroup/[^ ]* cgroup [^ ]*\b$c\b" /proc/mounts ||
			miss "the cgroup controller $c, mounted below /sys/fs/cgroup"
	done ;;
*)
	miss "cgroups, mounted on /sys/fs/cgroup" ;;
esac

if unshare --user --map-root-user true 2>/dev/null; then
	say ok "user namespaces"
elif [ "$(id -u)" = 0 ]; then
	miss "user namespaces (sysctl user.max_user_namespaces is 0?)"
else
	miss "user namespaces for this user (sysctl kernel.unprivileged_userns_clone=1)"
fi
if grep -qw overlay /proc/filesystems || modprobe -n overlay 2>/dev/null; then
	say ok "overlayfs"
else
	miss "overlayfs (modprobe overlay)"
fi
if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
	say ok "$(/usr/bin/python3 --version)"
else
	miss "/usr/bin/python3, 3.9 or newer"
fi
[ "$(id -u)" = 0 ] && say ok "root" ||
	say note "not root: 'pratai run' works, 'pratai up' and make demo do not"
exit $bad
