#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_linux.sh GUEST_CACHE: a real Linux guest in the emulated cluster. Snapshots through the API,
# with and without a freeze, are judged by e2fsck and the guest's own log.
. "$(dirname "$0")/../../lib/functions.sh"
requires curl jq qemu-system-x86_64 e2fsck dumpe2fs debugfs dpkg-deb

cache=$1
rc=0
"$top/tests/sandbox/guest/linux/make-guest" "$cache" "$bin/sandbox-glog" || rc=$?
if [ $rc -eq 77 ]; then
    [ -z "${NO_SKIP:-}" ] || fail "the guest's packages cannot be fetched"
    exit 77
fi
[ $rc -eq 0 ] || fail "make-guest: exit $rc"

cat >"$tmp/spec.json" <<'EOF'
{
  "timings": {"profile": "fast"},
  "data_centers": [{"name": "dc1"}],
  "clusters": [{"name": "c1", "data_center": "dc1"}],
  "hosts": [{"name": "host1", "cluster": "c1"}],
  "storage_domains": [{"name": "data1", "data_center": "dc1"}],
  "vms": [{
    "name": "penguin", "cluster": "c1", "guest": "linux",
    "disks": [{"size": "64MiB", "format": "qcow2", "interface": "virtio", "fill": 0, "alias": "a"},
              {"size": "64MiB", "format": "raw", "interface": "virtio", "fill": 0, "alias": "b"}]
  }]
}
EOF
box=$tmp/box
"$bin/oxbow-sandbox" --spec "$tmp/spec.json" --dir "$box" --linux-guest "$cache" \
    --keep "$tmp/keep" --ready-file "$tmp/ready" 2>"$tmp/sandbox.log" &
sandbox=$!
cleanup_fn stop_pid $sandbox
wait_until 300 "the guest has booted" test -s "$tmp/ready"

url=$(jq -r .url "$box/sandbox.json")
token=$(curl -sS --cacert "$box/ca.pem" -H 'Accept: application/json' -d grant_type=password \
    -d scope=ovirt-app-api --data-urlencode username=admin@internal \
    --data-urlencode "password=$(cat "$box/password")" "$url/sso/oauth/token" | jq -r .access_token)
api() { # METHOD PATH [BODY]
    curl -sS --fail-with-body --cacert "$box/ca.pem" -X "$1" -H "Authorization: Bearer $token" \
        -H 'Accept: application/json' -H 'Content-Type: application/json' ${3:+-d "$3"} "$url/api$2"
}
control() { # METHOD PATH [BODY]
    curl -sS --fail-with-body --unix-socket "$box/control.sock" -X "$1" ${3:+-d "$3"} \
        "http://sandbox/sandbox$2"
}
state() { control GET /state | jq -r "$1"; }
acked() { state '.vms[0].acked'; }
has_acked() { [ "$(acked)" -ge "$1" ]; }
vm=$(state '.vms[0].id')
snapshot_is_ok() { [ "$(api GET "/vms/$vm/snapshots/$snap" | jq -r .snapshot_status)" = ok ]; }
lock_is_free() { [ "$(state '.vms[0].lock')" = free ]; }
is_gone() { ! api GET "/vms/$vm/snapshots/$1"; }

# take_snapshot: sets $snap, $disk_a and $disk_b, the kept copies of its disks
take_snapshot() {
    snap=$(api POST "/vms/$vm/snapshots" '{"description":"t","persist_memorystate":"false"}' |
        jq -r .id)
    wait_until 60 "the snapshot is ok" snapshot_is_ok
    wait_until 60 "the lock is free" lock_is_free
    kept=$(find "$tmp/keep" -type d -name "$snap")
    wait_until 60 "its copies are kept" test -s "$kept/acked.json"
    disk_a=$kept/$(state '.disks[] | select(.alias == "a") | .id').raw
    disk_b=$kept/$(state '.disks[] | select(.alias == "b") | .id').raw
}
remove_snapshot() {
    api DELETE "/vms/$vm/snapshots/$snap" >/dev/null
    wait_until 120 "the snapshot is merged" is_gone "$snap"
    wait_until 60 "the lock is free" lock_is_free
}

wait_until 60 "the guest works" has_acked 30
before=$(acked)
take_snapshot
wait_until 60 "the guest goes on" has_acked $((before + 30))
check "a frozen guest's disks are clean and whole" \
    "$bin/sandbox-judge-linux" --frozen --acked "$before" "$disk_a" "$disk_b"
remove_snapshot

control POST /faults '{"point": "freeze-fail"}' >/dev/null
before=$(acked)
take_snapshot
check "without a freeze they are one crashed instant" \
    "$bin/sandbox-judge-linux" --acked "$before" "$disk_a" "$disk_b"
remove_snapshot
before=$(acked)
wait_until 60 "the guest goes on after the merge" has_acked $((before + 30))
