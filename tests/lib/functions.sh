# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What every shell test sources. A test has one temporary folder ($tmp), its own ports (from the
# kernel), and ends all it started by pid, however it ends.
#
#   . "$(dirname "$0")/../lib/functions.sh"
#   requires amqp-publish
#   cleanup_fn rm -f "$something"
#   ...
#   check "what is expected" command...

set -euo pipefail

top=${OXBOW_SOURCE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
bin=${OXBOW_BINARY_DIR:-$top/build/dev}/bin
# Short on purpose: the path of a unix socket may have 107 characters.
tmp=$(mktemp -d "${TMPDIR:-/tmp}/oxb.XXXXXX")
cleanups=()
# Programs built with a sanitizer write their reports here, whatever becomes of their stderr; one
# report fails the test (run_cleanups).
for options in ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS LSAN_OPTIONS; do
    export $options="${!options:+${!options}:}log_path=$tmp/sanitizer"
done
test_name=$(basename "$0")

# Exit as skipped when a command is missing; CI allows no skip.
requires() { # COMMAND...
    local c
    for c; do
        command -v "$c" >/dev/null && continue
        echo "$test_name: '$c' is missing"
        [ -z "${NO_SKIP:-}" ] || exit 1
        exit 77
    done
}

# Run a command at the end of the test, last one first.
cleanup_fn() { # COMMAND...
    cleanups+=("$(printf '%q ' "$@")")
}

run_cleanups() {
    local rc=$? i
    trap - EXIT
    set +e
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
        eval "${cleanups[$i]}"
    done
    local report
    for report in "$tmp"/sanitizer.*; do
        [ -s "$report" ] || continue
        echo "--- $test_name: a sanitizer reports:"
        head -n 60 "$report"
        [ $rc -ne 0 ] || rc=1
    done
    if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
        echo "--- $test_name failed (exit $rc); ends of the logs in $tmp:"
        local log
        for log in "$tmp"/*.log; do
            [ -s "$log" ] || continue
            echo "--- $(basename "$log")"
            tail -n "${TEST_LOG_LINES:-25}" "$log"
        done
    fi
    if [ -n "${KEEP_TMP:-}" ]; then
        echo "kept: $tmp"
    else
        rm -rf "$tmp"
    fi
    exit $rc
}
trap run_cleanups EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }
fail() { echo "$test_name: FAILED: $*" >&2; exit 1; }

# check TEXT COMMAND...: the command must succeed.
check() {
    local what=$1
    shift
    "$@" || fail "$what (command: $*)"
    say "ok: $what"
}

# wait_until SECONDS TEXT COMMAND...: poll until the command succeeds.
wait_until() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not within $limit s: $what"
        sleep 0.1
    done
}

# A TCP port that is free on loopback now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

is_alive() { kill -0 "$1" 2>/dev/null; }

# Stop a process by pid: TERM, then KILL after a limit.
stop_pid() { # PID [SECONDS]
    local pid=$1 end=$((SECONDS + ${2:-20}))
    is_alive "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while is_alive "$pid"; do
        if [ $SECONDS -ge $end ]; then
            kill -KILL "$pid" 2>/dev/null
            break
        fi
        sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
}
