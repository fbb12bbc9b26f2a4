#!/bin/sh
# The main job, for real: a control plane and a node in a temporary state directory, a
# Python function from a zip, its webhook called over HTTP, then a function that eats more
# memory than it may.  Exits non-zero as soon as anything is not as it should be, and
# leaves nothing behind.
#
# PRATAI: the program (default: the build tree's); PYTHON: for the zip.
set -eu

PRATAI=${PRATAI:-$(dirname "$0")/../build/pratai}
PYTHON=${PYTHON:-/usr/bin/python3}

[ "$(id -u)" = 0 ] || { echo "make demo: needs root, as 'pratai up' does" >&2; exit 1; }

work=$(mktemp -d /tmp/pratai-demo.XXXXXX)
up=

finish() {
	code=$?
	trap - EXIT
	if [ -n "$up" ]; then
		kill "$up" 2>/dev/null || true
		wait "$up" || { echo "pratai up did not end well" >&2; code=1; }
	fi
	if [ $code != 0 ] && [ -f "$work/log" ]; then
		echo "--- the end of the log" >&2
		tail -n 30 "$work/log" >&2
	fi
	rm -rf "$work"
	[ $code = 0 ] && printf '\nAll as it should be; nothing is left.\n'
	exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

title() { printf '\n== %s\n' "$*"; }
# Prints the command as one could type it, then runs it.
show() {
	line='$'
	for word; do
		case $word in
		*[!A-Za-z0-9_./=,:-]* | '') line="$line '$word'" ;;
		*) line="$line $word" ;;
		esac
	done
	printf '%s\n' "$line"
	"$@"
}
fail() { echo "make demo: $*" >&2; exit 1; }
pratai() { "$PRATAI" "$@"; }
field() { "$PYTHON" -I -c 'import json,sys
v = json.load(sys.stdin)
for k in sys.argv[1].split("."): v = v[k]
print(v)' "$1"; }

title "a control plane and a node, in $work/state"
"$PRATAI" up --state "$work/state" --listen 127.0.0.1:0 >"$work/ready" 2>"$work/log" &
up=$!
tries=0
until grep -qs '^ready ' "$work/ready"; do
	kill -0 "$up" 2>/dev/null || { up=; fail "pratai up ended: see below"; }
	tries=$((tries + 1))
	[ $tries -lt 700 ] || fail "pratai up is not ready after a minute"
	sleep 0.1
done
cat "$work/ready"
. "$work/state/env"

title "a function: a zip with main.py"
mkdir "$work/tag" "$work/hog"
cat >"$work/tag/main.py" <<'PY'
import os


def main(payload=None, context=None):
    print("tagging", payload["song"], "in a sandbox of its own, pid", os.getpid())
    return {"song": payload["song"], "tag": "ambient", "uid": os.getuid()}
PY
cat "$work/tag/main.py"
(cd "$work/tag" && "$PYTHON" -I -m zipfile -c ../tag.zip main.py)
show pratai function-create music_tag --file "$work/tag.zip" --description "tags a song" \
	--memory 128 --type wait_for_response -c name -c state -c type -c memory

title "its webhook"
cat <<TEXT
\$ curl -X POST -H "X-Auth-Token: \$OS_TOKEN" -d '{"payload":{"song":"Weightless"}}' \\
       $OS_PRATAI_URL/v1/functions/music_tag
TEXT
answer=$(curl --noproxy "*" -sS --fail-with-body -X POST -H "X-Auth-Token: $OS_TOKEN" \
	-D "$work/headers" -d '{"payload":{"song":"Weightless"}}' \
	"$OS_PRATAI_URL/v1/functions/music_tag")
echo "$answer"
[ "$(echo "$answer" | field tag)" = ambient ] || fail "the answer is not the function's"
grep -i '^pratai-' "$work/headers" | tr -d '\r'
event=$(sed -n 's/^[Pp]ratai-[Ee]vent-[Ii]d: *\([0-9a-f-]*\).*/\1/p' "$work/headers")
[ -n "$event" ] || fail "the answer does not name its event"

# The record of an event that was answered from memory is written right after the answer.
tries=0
until [ "$(pratai event-show "$event" -f value -c state 2>/dev/null)" = succeeded ]; do
	tries=$((tries + 1))
	[ $tries -lt 50 ] || fail "event $event is not recorded as succeeded"
	sleep 0.1
done
title "its log and what it used"
show pratai event-logs "$event"
show pratai event-show "$event" -c event_id -c state -c usage -c timeline_us
pratai event-logs "$event" | grep -q 'tagging Weightless' || fail "the log is not the function's"

title "the same, asynchronously: accepted at once, run, asked for"
show pratai function-create slow --file "$work/tag" -c name -c state -c type
show pratai function-execute slow --data '{"song":"Discreet Music"}' --wait
echo

title "a function that eats more than its 64 MiB"
cat >"$work/hog/main.py" <<'PY'
def main(payload=None):
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))
PY
pratai function-create hog --file "$work/hog" --memory 64 --type wait_for_response \
	-c name -c state -c memory
code=0
show pratai function-execute hog --data '{}' || code=$?
[ $code = 3 ] || fail "the hog ended with exit code $code, not 3"
tries=0
until pratai event-list --function hog -f value -c state | grep -q '^memory_exceeded$'; do
	tries=$((tries + 1))
	[ $tries -lt 50 ] || fail "the hog's event is not recorded as memory_exceeded"
	sleep 0.1
done
show pratai event-list --function hog -c function_name -c state -c reason -c usage.memory_peak_bytes

title "it still serves"
show pratai function-execute music_tag --data '{"song":"1/1"}'
echo
show pratai event-list
