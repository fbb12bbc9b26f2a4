#!/bin/sh
# sources.sh SUITE DIR: the machine's sources, for SUITE in place of the machine's own.
set -eu

for file in /tmp/pratai/apt/sources/*; do
	if [ -n "${PRATAI_MACHINE_SUITE-}" ]; then
		sed "/^[Uu][Rr][Ii]s:/!s/\(^\|[ 	]\)$PRATAI_MACHINE_SUITE\([-/ 	]\|\$\)/\1$1\2/g" \
			"$file" >"$2/${file##*/}"
	else
		cp "$file" "$2/${file##*/}"
	fi
done
