# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Backups by the engine's own backups, and what the sandbox knows of them. After once.sh.

by_cbt='{"path": "cbt"}'
meta() { "$worker" repo show "$tmp/repository" "$(result .point)" --json | jq -r ".meta | $1"; }
last_backup() { state | jq --arg id "$(meta .backup)" ".backups[] | select(.id == \$id) | $1"; }
# Bytes that the sandbox has sent of the disks of the last backup: all, or of the incremental ones.
bytes_sent() { # all | incremental
    state | jq --arg id "$(meta .backup)" --arg which "$1" '
        [.backups[] | select(.id == $id) | .disks[] | select($which == "all" or .incremental) | .id] as $disks
        | [.transfers[] | select(.backup == $id and (.disk | IN($disks[]))) | .bytes] | add // 0'
}
checkpoints() { state | jq -r --arg vm "$1" '.vms[] | select(.name == $vm) | .checkpoints[].id'; }
count_of() { wc -w <<<"$1"; }
has() { grep -qxF "$2" <<<"$1"; }
power() { # VM start|stop STATUS
    api POST "/vms/$(vm_id "$1")/$2" '{}' >/dev/null
    wait_until 60 "VM $1 is $3" vm_status_is "$1" "$3"
}
vm_status_is() { state | jq -e --arg vm "$1" --arg want "$2" '.vms[] | select(.name == $vm) | .status == $want and .lock == "free"' >/dev/null; }
wrote() { # VM FROM N: N writes have come since FROM
    [ "$(state | jq --arg vm "$1" '.vms[] | select(.name == $vm) | .acked')" -ge $(($2 + $3)) ]
}
writes() { # VM N
    local from
    from=$(state | jq --arg vm "$1" '.vms[] | select(.name == $vm) | .acked')
    wait_until 60 "$2 writes of VM $1" wrote "$1" "$from" "$2"
}
# The point's disks are byte for byte what the sandbox kept at the instant of the backup, and one
# instant of the guest's records.
restores() { # VM
    local kept disk args=() point spec size
    spec=$(state | jq -r --arg vm "$1" '.vms[] | select(.name == $vm) | .guest_spec')
    kept=$tmp/frozen/$(vm_id "$1")/$(meta .backup) point=$(result .point)
    if [ -e "$kept/acked.json" ]; then # a VM that is down has no guest to ask
        args+=(--after "$(jq .after "$kept/acked.json")" --before "$(jq .before "$kept/acked.json")")
    fi
    for disk in $(meta '.disks[].id'); do
        rm -f "$tmp/$disk.raw"
        "$worker" repo export "$tmp/repository" "$point" --disk "$disk" --output "$tmp/$disk.raw" >/dev/null &&
            cmp "$tmp/$disk.raw" "$kept/$disk.raw" || return 1
        # The guest uses what it had at first: disks that came later are none of its, and of one that
        # has grown it uses the first part.
        size=$(jq -r --arg id "$disk" '.disks[] | select(.id == $id) | .size_bytes' "$spec")
        [ -n "$size" ] || continue
        truncate -s "$size" "$tmp/$disk.raw"
        args+=(--disk "$disk=$tmp/$disk.raw")
    done
    [ "${#args[@]}" -gt 0 ] && "$bin/sandbox-judge" --spec "$spec" "${args[@]}" >/dev/null
}
incremental() { # VM: the last backup was one, by the sandbox's count
    local sent changed
    sent=$(bytes_sent incremental) changed=$(last_backup '[.disks[].changed_bytes] | add')
    check "... it read only what changed: $sent bytes sent of $changed that changed" \
        test "$sent" -le "$changed" -a "$sent" -gt 0 -a "$changed" -lt $((20 << 20))
    check "... and says so" test "$(result .stats.bytes_read)" -le "$(bytes_sent all)"
}
no_warning() { check "... without a warning" test "$(result '[.warnings[]? | select(.code == "full-backup")] | length')" = 0; }
