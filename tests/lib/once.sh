# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Workers that run tasks from files against a sandbox, with the engine going wrong: what the once-*
# fault tests share. After functions.sh and cluster.sh; the caller has written $tmp/spec.json.

worker=$bin/oxbow-worker

once_start() {
    cluster_sandbox "$tmp/spec.json"
    "$worker" repo init "$tmp/repository" >/dev/null
    local i
    for i in 1 2; do
        cat >"$tmp/worker$i.yaml" <<CONF
name: worker$i
zone: dc1
engine:
  url: $(sandbox_info .url)
  user: $(sandbox_info .user)
  password_file: $(sandbox_info .password_file)
  ca_file: $(sandbox_info .ca)
proxy_vm: $(sandbox_info ".proxies[$((i - 1))].name")
device_dir: $(sandbox_info ".proxies[$((i - 1))].dev_dir")
repository:
  path: $tmp/repository
quiesce_limit_s: 3
wait:
  device_s: 4
reserve:
  repository_mib: 64
  storage_domain_mib: 64
CONF
    done
    counts=$(state | jq -c '[(.vms | length), (.disks | length)]')
}

uuid() { cat /proc/sys/kernel/random/uuid; }
state() { sandbox_control /sandbox/state; }
vm_id() { state | jq -r --arg name "$1" '.vms[] | select(.name == $name) | .id'; }
result() { jq -r "select(.type == \"oxbow.result.v1\") | .body | $1" "$tmp/events"; }
faults() { sandbox_control /sandbox/faults -X POST -d "$1" >/dev/null; }
no_faults() { sandbox_control /sandbox/faults -X DELETE >/dev/null; }
fired() { [ "$(sandbox_control /sandbox/faults | jq '[.. | .fired? // empty] | add')" -gt 0 ]; }

# run WORKER KIND JSON: exit code in $rc, events in $tmp/events.
run() {
    jq -n --arg task "${task:-$(uuid)}" --arg kind "$2" --argjson more "$3" '{task: $task, request: $task,
        kind: $kind, zone: "dc1", lane: (if $kind == "cleanup" then "upkeep" else $kind end), attempt: 1} + $more' >"$tmp/task.json"
    rc=0
    "$worker" --config "$tmp/worker$1.yaml" --once "$tmp/task.json" >"$tmp/events" 2>>"$tmp/worker$1.log" || rc=$?
}
backup() { # VM [BACKUP_OPTIONS_JSON]
    run 1 backup "$(jq -n --arg vm "$(vm_id "$1")" --arg name "$1" --argjson o "${2:-{\}}" '{vm: $vm, vm_name: $name, backup: $o}')"
}
restore() { # RESTORE_OPTIONS_JSON
    run 1 restore "$(jq -n --argjson o "$1" '{restore: $o}')"
}

writes_on() { # the guest of VM web acknowledges new writes
    local before
    before=$(state | jq '.vms[] | select(.name == "web") | .acked')
    wait_until 10 "the guest writes" guest_passed "$before"
}
guest_passed() { [ "$(state | jq '.vms[] | select(.name == "web") | .acked')" -gt "$1" ]; }
only_known_vms() { # VMs and disks are as before: nothing half restored
    [ "$(state | jq -c '[(.vms | length), (.disks | length)]')" = "$counts" ]
}
# expect TEXT STATUS [ERROR_CODE]: how the last task ended, and that nothing is left.
expect() {
    local want=1
    [ "$2" != succeeded ] || want=0
    [ $rc -eq $want ] && [ "$(result .status)" = "$2" ] || fail "$1: exit $rc, $(result '.status + " " + (.error.message // "")')"
    [ -z "${3:-}" ] || [ "$(result .error.code)" = "$3" ] || fail "$1: $(result .error.code), not $3"
    check "$1: $2 ${3:-}; nothing is left" cluster_nothing_left
    no_faults
}
warned() { check "... with the warning $1" test "$(result "[.warnings[]? | select(.code == \"$1\")] | length")" -ge 1; }
quiesced() { check "... quiesced: $1" test "$("$worker" repo show "$tmp/repository" "$(result .point)" --json | jq -r .meta.quiesced)" = "$1"; }

# The last restore's VM is whole; removes it again, so that counts stay comparable.
restored() {
    local id
    id=$(result .new_vm)
    [ "$id" != null ] || fail "no new VM"
    check "nothing carries a marker" test "$(state | jq '[.vms[], .disks[] | select(.description // "" | startswith("oxbow"))] | length')" = 0
    curl -sS --cacert "$(sandbox_info .ca)" -u "$(sandbox_info .user):$(cat "$(sandbox_info .password_file)")" \
        -X DELETE -H 'Accept: application/json' "$(sandbox_info .url)/api/vms/$id" >/dev/null
    wait_until 20 "it is removed" only_known_vms
}
