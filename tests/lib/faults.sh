# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the fault tests share; after functions.sh and cluster.sh. The backup's JSON is in
# $tmp/backup.json.

# Throttle what proxies read and write, so that a copy or a restore lasts long enough to be met in the
# middle.
device_limits() { # BYTES_PER_SECOND
    sandbox_control /sandbox/devices -X POST -d "{\"read_bps\": $1, \"write_bps\": $1}" >/dev/null
}
slow_devices() { device_limits 8388608; }
fast_devices() { device_limits 0; }

# A worker whose log says that it began a step and not that it has ended.
worker_in() { # STEP
    local log
    for log in "$tmp"/worker*.log; do
        if [ "$(grep -c "event=step_started .*step=$1\$" "$log")" -gt \
            "$(grep -c "event=step_\(done\|failed\) .*step=$1\( \|\$\)" "$log")" ]; then
            basename "$log" .log
            return 0
        fi
    done
    return 1
}
worker_that_copies() { worker_in copy; }
any_worker_copies() { worker_in copy >/dev/null; }
any_worker_writes() { worker_in write >/dev/null; }

# The task whose step a worker began last.
task_in() { # WORKER STEP
    grep "event=step_started step=$2\$" "$tmp/$1.log" | tail -1 | sed 's/.* task=\([^ ]*\) .*/\1/'
}

# The id of the request that a JSON output of the CLI is about.
request_of() { jq -r 'select(.type == "accepted") | .request' "$1" | head -1; } # FILE
is_accepted() { [ -n "$(request_of "$1")" ]; }                                # FILE

no_points() { [ "$(ox list --json | jq -s 'map(select(.type == "point")) | length')" = 0 ]; }

# No VM or disk but those of the specification and of finished restores: nothing carries a marker,
# and each disk belongs to a VM.
no_half_restores() {
    sandbox_control /sandbox/state | jq -e '
        ([.vms[].attachments[]?.disk] | unique) as $held |
        ([.vms[], .disks[] | .description // "" | select(startswith("oxbow "))] | length == 0) and
        ([.disks[].id] | all(IN($held[])))' >/dev/null
}

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

# Every VM of the backup, restored side by side, and each proven.
restore_and_prove_all() {
    local vm
    local -A restores=()
    while read -r vm; do
        ox restore --vm "$vm" --name "$vm-restored" >"$tmp/restore.$vm" 2>&1 &
        restores[$vm]=$!
    done < <(outcomes | jq -r .vm_name)
    for vm in "${!restores[@]}"; do
        wait "${restores[$vm]}" || fail "restore $vm: $(cat "$tmp/restore.$vm")"
        check "$vm is identical" "$top/tests/lib/prove" "$cluster" "$bin" "$vm" "$vm-restored"
    done
    check "nothing is left behind after the restores" cluster_nothing_left
}
