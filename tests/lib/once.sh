# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Workers that run tasks from files against a sandbox, with the engine going wrong: what the once-*
# fault tests share. After functions.sh and cluster.sh; the caller has written $tmp/spec.json.

worker=$bin/oxbow-worker

once_pid=
once_stop() { [ -z "$once_pid" ] || stop_pid "$once_pid" 5; }

once_start() {
    cleanup_fn once_stop
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
  request_timeout_s: ${once_request_timeout_s:-180}
  retry_ms: 200
  poll_ms: 100
proxy_vm: $(sandbox_info ".proxies[$((i - 1))].name")
device_dir: $(sandbox_info ".proxies[$((i - 1))].dev_dir")
repository:
  path: $tmp/repository
quiesce_limit_s: 3
wait:
  device_s: 4
  engine_s: ${once_engine_s:-900}
  snapshot_s: ${once_snapshot_s:-2700}
reserve:
  repository_mib: 64
  storage_domain_mib: 64
  watch_s: 1
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

# begin WORKER KIND JSON: the task runs in the background, its events go to $tmp/events.
begin() {
    jq -n --arg task "${task:-$(uuid)}" --arg kind "$2" --argjson more "$3" '{task: $task, request: $task,
        kind: $kind, zone: "dc1", lane: (if $kind == "cleanup" then "upkeep" else $kind end), attempt: 1} + $more' >"$tmp/task.json"
    "$worker" --config "$tmp/worker$1.yaml" --once "$tmp/task.json" >"$tmp/events" 2>>"$tmp/worker$1.log" &
    once_pid=$!
}
# Its exit code in $rc.
end() {
    rc=0
    wait "$once_pid" || rc=$?
}
run() { # WORKER KIND JSON
    begin "$@"
    end
}
backup_begin() { # VM [BACKUP_OPTIONS_JSON]
    begin 1 backup "$(jq -n --arg vm "$(vm_id "$1")" --arg name "$1" --argjson o "${2:-{\}}" '{vm: $vm, vm_name: $name, backup: $o}')"
}
backup() { # VM [BACKUP_OPTIONS_JSON]
    backup_begin "$@"
    end
}
step_is() { # STEP STATE: the running task has said so
    jq -se --arg step "$1" --arg state "$2" 'any(.[]; .type == "oxbow.step.v1" and .body.step == $step and .body.state == $state)' "$tmp/events"
}
# Another client of the engine's API.
api() { # METHOD PATH [BODY]
    curl -sS --fail-with-body --cacert "$(sandbox_info .ca)" -u "$(sandbox_info .user):$(cat "$(sandbox_info .password_file)")" \
        -X "$1" -H 'Accept: application/json' -H 'Content-Type: application/json' ${3:+-d "$3"} "$(sandbox_info .url)/api$2"
}
restore() { # RESTORE_OPTIONS_JSON
    run 1 restore "$(jq -n --argjson o "$1" '{restore: $o}')"
}

writes_on() { # the guest of VM web acknowledges new writes
    local before
    before=$(state | jq '.vms[] | select(.name == "web") | .acked')
    wait_until 60 "the guest writes" guest_passed "$before"
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
    api DELETE "/vms/$id" >/dev/null
    wait_until 60 "it is removed" only_known_vms
}
