# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For the tests of the command line: a private broker, a scripted coordinator and `ox`.
. "$(dirname "${BASH_SOURCE[0]}")/../../lib/functions.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requires /usr/bin/python3 jq
export TERM=dumb NO_COLOR=1 LC_ALL=C.UTF-8

broker_up() { # [private-broker option]...
    cleanup_fn "$top/tests/lib/broker" destroy "$tmp/broker"
    "$top/tests/lib/broker" start "$tmp/broker" "$@" >"$tmp/broker.log" 2>&1
    # shellcheck disable=SC1091
    . "$tmp/broker/broker.env"
    cat >"$tmp/oxbow.yaml" <<EOF
broker:
  host: $HOST
  port: $PORT
  vhost: $VHOST
  user: $CLIENT_USER
  password_file: $CLIENT_PASSWORD_FILE
EOF
}

# Start a coordinator that plays the script on standard input; the last one is stopped.
coordinator=
play() {
    [ -z "$coordinator" ] || stop_pid "$coordinator"
    rm -f "$tmp"/received.* "$tmp/played" "$tmp/ready" "$tmp"/go* "$tmp"/at*
    cat >"$tmp/script.json"
    "$here/fake_coordinator.py" "$tmp/broker/broker.env" "$tmp/script.json" "$tmp" \
        2>>"$tmp/coordinator.log" &
    coordinator=$!
    wait_until 60 "the scripted coordinator is ready" test -e "$tmp/ready"
}
cleanup_fn eval 'if [ -n "$coordinator" ]; then stop_pid "$coordinator"; fi'

ox() { "$bin/oxbow" "$@" --config "$tmp/oxbow.yaml"; }

# expect CODE WHAT COMMAND...: runs with output in $tmp/out and $tmp/err.
expect() {
    local code=$1 what=$2 rc=0
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" || rc=$?
    if [ $rc -ne "$code" ]; then
        cat "$tmp/out" "$tmp/err"
        fail "$what: exit code $rc, not $code"
    fi
    say "ok: $what"
}
out_has() { grep -qe "$1" "$tmp/out" || { cat "$tmp/out"; fail "standard output lacks '$1'"; }; }
err_has() { grep -qe "$1" "$tmp/err" || { cat "$tmp/err"; fail "standard error lacks '$1'"; }; }
out_lacks() { ! grep -qe "$1" "$tmp/out" || { cat "$tmp/out"; fail "standard output has '$1'"; }; }
err_lacks() { ! grep -qe "$1" "$tmp/err" || { cat "$tmp/err"; fail "standard error has '$1'"; }; }
# What a request held: received KIND NUMBER JQ_FILTER
received() { jq -r "$3" "$tmp/received.$1.$2"; }
