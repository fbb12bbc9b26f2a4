#!/bin/sh
# sources.sh SUITE DIR: the machine's sources, for SUITE in place of the machine's own.
set -eu

own=${PRATAI_MACHINE_SUITE-}
# Twice, since one space may stand between two of them.
change="s/\(^\|[ 	]\)$own\([-/ 	]\|\$\)/\1$1\2/g"
for file in /tmp/pratai/apt/sources/*; do
	if [ -n "$own" ]; then
		sed -e "/^[Uu][Rr][Ii]s:/b" -e "$change" -e "$change" "$file" >"$2/${file##*/}"
	else
		cp "$file" "$2/${file##*/}"
	fi
done
