# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the fault tests share; after functions.sh and cluster.sh. The backup's JSON is in
# $tmp/backup.json.

# Throttle what proxies read, so that a copy lasts long enough to be met in the middle.
slow_devices() { sandbox_control /sandbox/devices -X POST -d '{"read_bps": 8388608}' >/dev/null; }
fast_devices() { sandbox_control /sandbox/devices -X POST -d '{"read_bps": 0}' >/dev/null; }

# A worker whose log says that it began to copy and not that it has ended.
worker_that_copies() {
    local log
    for log in "$tmp"/worker*.log; do
        if [ "$(grep -c 'event=step_started .*step=copy' "$log")" -gt \
            "$(grep -c 'event=step_\(done\|failed\) .*step=copy' "$log")" ]; then
            basename "$log" .log
            return 0
        fi
    done
    return 1
}
any_worker_copies() { worker_that_copies >/dev/null; }

outcomes() { jq -c 'select(.type == "outcome" and .kind == "backup")' "$tmp/backup.json"; }

all_succeeded() { # COUNT
    check "$1 VMs succeeded" test \
        "$(outcomes | jq -s 'map(select(.status == "succeeded")) | length')" = "$1"
}

one_point_each() { # COUNT
    [ "$(ox list --json | jq -s --argjson n "$1" 'map(select(.type == "point"))
        | length == $n and (map(.vm) | unique | length) == $n')" = true ]
}

# By the sandbox's own account: one snapshot for each VM, all at the first attempt.
nothing_was_done_twice() { # COUNT
    check "one snapshot for each VM" test "$(sandbox_control /sandbox/calls |
        jq '[.mutating[] | select(.method == "POST" and (.path | test("vms/[^/]*/snapshots$")))] | length')" = "$1"
    check "each at the first attempt" test "$(outcomes | jq -s 'map(.attempts) | max')" = 1
}

restore_and_prove_all() {
    local vm
    while read -r vm; do
        ox restore --vm "$vm" --name "$vm-restored" >"$tmp/restore.out" 2>&1 ||
            fail "restore $vm: $(cat "$tmp/restore.out")"
        check "$vm is identical" "$top/tests/lib/prove" "$cluster" "$bin" "$vm" "$vm-restored" \
            "$(outcomes | jq -r --arg vm "$vm" 'select(.vm_name == $vm) | .snapshot // empty')"
    done < <(outcomes | jq -r .vm_name)
    check "nothing is left behind after the restores" cluster_nothing_left
}
