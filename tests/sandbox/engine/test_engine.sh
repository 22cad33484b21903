#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The emulated engine from outside, as a client meets it: sign-on, refusals, and the life of a
# snapshot with real disks behind it.
. "$(dirname "$0")/../../lib/functions.sh"
requires curl jq qemu-img cmp

box=$tmp/box
"$bin/oxbow-sandbox" --spec "$top/tests/sandbox/engine/spec_test.json" --dir "$box" \
    --keep "$tmp/keep" --ready-file "$tmp/ready" 2>"$tmp/sandbox.log" &
sandbox=$!
cleanup_fn stop_pid $sandbox
wait_until 120 "the sandbox is ready" test -s "$tmp/ready"

url=$(jq -r .url "$box/sandbox.json")
password=$(cat "$box/password")
zero=00000000-0000-0000-0000-000000000000

login() { # ACCEPT PASSWORD: body, then the status
    curl -sS --cacert "$box/ca.pem" -H "Accept: $1" -w '\n%{http_code}' -d grant_type=password \
        -d scope=ovirt-app-api --data-urlencode username=admin@internal \
        --data-urlencode "password=$2" "$url/sso/oauth/token"
}
take_token() { token=$(login application/json "$password" | head -n -1 | jq -r .access_token); }

# call METHOD PATH [curl option]...: sets $body and $status; status 000 when the connection broke.
call() {
    local method=$1 path=$2
    shift 2
    body=$(curl -s --cacert "$box/ca.pem" -X "$method" -H "Authorization: Bearer $token" \
        -H 'Accept: application/json' -H 'Content-Type: application/json' -w '\n%{http_code}' \
        "$@" "$url/api$path") || true
    status=${body##*$'\n'}
    body=${body%$'\n'*}
}
get() { jq -r "$1" <<<"$body"; } # JQ_FILTER on the last body
# expect STATUS METHOD PATH [curl option]...
expect() {
    local want=$1
    shift
    call "$@"
    [ "$status" = "$want" ] || fail "$1 $2: $status instead of $want: $body"
}
says() { [[ $body == *"$1"* ]] || fail "no '$1' in: $body"; }
post() { call POST "$1" -d "$2"; }
control() { # METHOD PATH [BODY]
    curl -sS --fail-with-body --unix-socket "$box/control.sock" -X "$1" \
        ${3:+-d "$3"} "http://sandbox/sandbox$2"
}
state() { control GET /state | jq -r "$1"; }
fault() { control POST /faults "$1" >/dev/null; }
vm_id() { state ".vms[] | select(.name == \"$1\") | .id"; }
is_status() { call GET "$1"; [ "$(get "$2")" = "$3" ]; } # PATH FILTER VALUE
is_gone() { call GET "$1"; [ "$status" = 404 ]; }
lock_is_free() { [ "$(state ".vms[] | select(.id == \"$1\") | .lock")" = free ]; }

# snapshot VM: sets $snap; waits until it is ok and the lock is free
snapshot() {
    post "/vms/$1/snapshots" '{"description":"test","persist_memorystate":"false"}'
    [ "$status" = 202 ] || fail "snapshot: $status $body"
    snap=$(get .id)
    wait_until 60 "the snapshot is ok" is_status "/vms/$1/snapshots/$snap" .snapshot_status ok
    wait_until 60 "the lock is free" lock_is_free "$1"
}
remove_snapshot() { # VM SNAPSHOT
    expect 200 DELETE "/vms/$1/snapshots/$2"
    wait_until 60 "the snapshot is merged" is_gone "/vms/$1/snapshots/$2"
    wait_until 60 "the lock is free" lock_is_free "$1"
}
attach() { # PROXY DISK SNAPSHOT INTERFACE
    post "/vms/$1/diskattachments" "{\"active\":\"true\",\"bootable\":\"false\",
        \"interface\":\"$4\",\"disk\":{\"id\":\"$2\",\"snapshot\":{\"id\":\"$3\"}}}"
}

# --- Sign-on -------------------------------------------------------------------------------------
body=$(login '*/*' "$password")
says "Missing parameter: 'Accept Header'"
body=$(login application/json wrong)
says '"error_code": "access_denied"'
says $'\n400'
token=none
expect 401 GET /vms
says '<html>'
take_token
expect 200 GET ''
check "numbers are strings" test "$(get '.product_info.version.major | type')" = string
check "dates are numbers" test "$(get '.time | type')" = number
check "the CA is served" cmp -s "$box/ca.pem" <(curl -sk \
    "$url/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA")
expect 406 GET '/vms?accept=application/xml'
expect 404 GET /vms/$zero
check "a 404 has no body" test -z "$body"
expect 404 GET /nonsense
say "sign-on and representation"

# --- Search and pages ----------------------------------------------------------------------------
expect 200 GET '/vms?search=name%3Dweb*%20and%20tag%3Dbackup%20sortby%20name&max=2'
check "page 1" test "$(get '[.vm[].name] | join(" ")')" = 'web01 web02'
expect 200 GET '/vms?search=name%3Dweb*%20sortby%20name%20page%202&max=2'
check "page 2" test "$(get '[.vm[].name] | join(" ")')" = web03
expect 200 GET '/vms?search=name%3Dweb*%20sortby%20name%20page%203&max=2'
check "an empty page is {}" test "$(jq -c . <<<"$body")" = '{}'
expect 400 GET '/vms?search=nom%3Dx'
expect 200 GET '/vms?search=name%3Dweb01&follow=disk_attachments.disk,nics,tags'
check "follow shows disks" test "$(get '.vm[0].disk_attachments.disk_attachment[0].disk.format')" = raw
expect 500 GET '/vms?follow=bios'
say "search, pages, follow"

# --- Snapshot: refusals, states, the late lock -----------------------------------------------------
web1=$(vm_id web01) web2=$(vm_id web02) web3=$(vm_id web03) cold=$(vm_id cold)
proxy=$(vm_id proxy1) other_proxy=$(vm_id proxy2)
dev=$(jq -r '.proxies[0].dev_dir' "$box/sandbox.json")
expect 400 POST "/vms/$web1/snapshots" -d '{"persist_memorystate":"false"}'
says 'Snapshot [description] required for add'
expect 400 POST "/vms/$web1/snapshots" -d '{"description":"x","persist":"false"}'
says 'Request syntactically incorrect.'
expect 400 POST "/vms/$web1/snapshots" -d '{"description":'
active=$(state ".vms[] | select(.id == \"$web1\") | .snapshots[0].id")
control POST /timings '{"lock_release_ms": 3000}' >/dev/null
expect 202 POST "/vms/$web1/snapshots" -d '{"description":"test","persist_memorystate":"false"}'
snap=$(get .id)
check "the snapshot takes over the id of the active entry" test "$snap" = "$active"
check "the answer carries the OVF" test "$(get '.initialization.configuration.type')" = ovf
expect 409 POST "/vms/$web1/snapshots" -d '{"description":"x","persist_memorystate":"false"}'
says 'Snapshot is currently being created for VM web01'
wait_until 60 "the snapshot is ok" is_status "/vms/$web1/snapshots/$snap" .snapshot_status ok
expect 409 DELETE "/vms/$web1/snapshots/$snap"
says 'Snapshot is currently being created'
wait_until 60 "the lock is free" lock_is_free "$web1"
control POST /timings '{"lock_release_ms": 100}' >/dev/null
expect 200 GET "/vms/$web1/snapshots/$snap/disks"
check "shared disks are left out" test "$(get '.disk | length')" = 2
disk=$(get '.disk[0].id') disk2=$(get '.disk[1].id') image=$(get '.disk[0].image_id')
say "the snapshot and its late lock"

# --- Attach --------------------------------------------------------------------------------------
expect 409 POST "/vms/$proxy/diskattachments" \
    -d "{\"active\":\"true\",\"interface\":\"virtio_scsi\",\"disk\":{\"id\":\"$disk\"}}"
says 'is not shareable'
expect 400 POST "/vms/$proxy/diskattachments" -d "{\"active\":\"true\",\"interface\":\"ide\",
    \"read_only\":\"true\",\"disk\":{\"id\":\"$disk\",\"snapshot\":{\"id\":\"$snap\"}}}"
attach "$other_proxy" "$disk" "$snap" virtio_scsi
check "another data centre is refused" test "$status" = 409
says 'different Data Centers'
attach "$proxy" "$disk" $zero virtio_scsi
check "an unknown snapshot is refused" test "$status" = 400
attach "$proxy" "$disk" "$snap" virtio_scsi
check "attached" test "$status" = 201
attach "$proxy" "$disk" "$snap" virtio_scsi
check "twice is refused" test "$status" = 409
says 'already attached'
attach "$proxy" "$disk2" "$snap" virtio
check "attached the second disk" test "$status" = 201
# A snapshot's disk may be on several proxies at once; a live one may not, as seen above.
proxy3=$(vm_id proxy3) dev3=$(jq -r '.proxies[2].dev_dir' "$box/sandbox.json")
attach "$proxy3" "$disk" "$snap" virtio_scsi
check "attached to a second proxy" test "$status" = 201
scsi3=$dev3/scsi-0QEMU_QEMU_HARDDISK_$disk
wait_until 60 "the device is there as well" test -e "$scsi3"
scsi=$dev/scsi-0QEMU_QEMU_HARDDISK_$disk virtio=$dev/virtio-${disk2:0:20}
wait_until 60 "the devices are there" test -e "$scsi" -a -e "$virtio"
expect 409 DELETE "/vms/$web1/snapshots/$snap"
says 'attached to other VMs'
references_made() {
    [ "$(state ".vms[].snapshots[] | select(.id == \"$1\") | .references_made")" = true ]
}
wait_until 60 "the reference copies are made" references_made "$snap"
cat "$scsi" >"$tmp/1.raw"
cat "$virtio" >"$tmp/2.raw"
check "the second proxy sees the same" cmp "$scsi3" "$tmp/1.raw"
expect 200 DELETE "/vms/$proxy3/diskattachments/$disk"
check "gone from there only" test ! -e "$scsi3" -a -e "$scsi"
expect 409 DELETE "/vms/$web1/snapshots/$snap"
check "raw disk: identical" cmp "$tmp/1.raw" "$tmp/keep/$web1/$snap/$disk.raw"
check "qcow2 disk: identical" cmp "$tmp/2.raw" "$tmp/keep/$web1/$snap/$disk2.raw"
check "one instant of the guest" "$bin/sandbox-judge" \
    --spec "$(state ".vms[] | select(.id == \"$web1\") | .guest_spec")" \
    --after "$(jq .after "$tmp/keep/$web1/$snap/acked.json")" \
    --before "$(jq .before "$tmp/keep/$web1/$snap/acked.json")" \
    --disk "$disk=$tmp/1.raw" --disk "$disk2=$tmp/2.raw"
exec 9<"$scsi"
call DELETE "/vms/$proxy/diskattachments/$disk"
check "a device in use is not unplugged" test "$status" = 400
exec 9<&-
expect 200 DELETE "/vms/$proxy/diskattachments/$disk"
expect 200 DELETE "/vms/$proxy/diskattachments/$disk2"
check "the devices are gone" test ! -e "$scsi" -a ! -e "$virtio"
check "the proxy's own disk still shows" test "$(ls "$dev" | wc -l)" = 1
say "attach, read, detach"

# --- Image transfer of the same snapshot -----------------------------------------------------------
expect 201 POST /imagetransfers \
    -d "{\"snapshot\":{\"id\":\"$image\"},\"direction\":\"download\",\"format\":\"raw\"}"
transfer=$(get .id)
wait_until 60 "the transfer is ready" is_status "/imagetransfers/$transfer" .phase transferring
ticket=$(get .transfer_url)
attach "$proxy" "$disk" "$snap" virtio_scsi
check "what is being transferred is not attached" test "$status" = 409
says 'disks are locked'
curl -sS --cacert "$box/ca.pem" -o "$tmp/3.raw" "$ticket"
check "downloaded the same bytes" cmp "$tmp/1.raw" "$tmp/3.raw"
expect 409 DELETE "/vms/$web1/snapshots/$snap"
says 'are locked'
expect 200 POST "/imagetransfers/$transfer/finalize" -d '{}'
wait_until 60 "it is over" is_status "/imagetransfers/$transfer" .phase finished_success
check "the ticket is gone" test \
    "$(curl -s --cacert "$box/ca.pem" -o /dev/null -w '%{http_code}' "$ticket")" = 403

# --- Merge: a failure, then success ---------------------------------------------------------------
fault '[{"point":"merge-slow","vm":"web01","delay_ms":2000},{"point":"merge-fail","vm":"web01"}]'
expect 200 DELETE "/vms/$web1/snapshots/$snap"
wait_until 60 "the merge has begun" is_status "/vms/$web1/snapshots/$snap" .snapshot_status locked
wait_until 60 "the merge has failed" is_status "/vms/$web1/snapshots/$snap" .snapshot_status ok
expect 200 GET "/vms/$web1/snapshots/$snap/disks"
check "its volumes are illegal" test "$(get '.disk[0].status')" = illegal
wait_until 60 "the lock is free" lock_is_free "$web1"
remove_snapshot "$web1" "$snap"
check "one volume is left" test "$(state ".disks[] | select(.id == \"$disk\") | .chain | length")" = 1
expect 200 GET "/events?search=type%3D357"
check "event 357 was noted" test "$(get '.event | length')" = 1
say "merge"

# --- Faults ----------------------------------------------------------------------------------------
fault '{"point":"snapshot-vanish","vm":"web02"}'
expect 202 POST "/vms/$web2/snapshots" -d '{"description":"v","persist_memorystate":"false"}'
wait_until 60 "the snapshot has vanished" is_gone "/vms/$web2/snapshots/$(get .id)"
wait_until 60 "the lock is free" lock_is_free "$web2"
fault '{"path":"/snapshots$","method":"POST","action":"drop","when":"after"}'
call POST "/vms/$web2/snapshots" -d '{"description":"lost answer","persist_memorystate":"false"}'
check "the connection was cut" test "$status" = 000
expect 200 GET "/vms/$web2/snapshots"
snap=$(get '.snapshot[] | select(.description == "lost answer") | .id')
check "after the effect" test -n "$snap"
wait_until 60 "the lock is free" lock_is_free "$web2"
fault '{"path":"/snapshots/","method":"DELETE","action":"drop","when":"before"}'
call DELETE "/vms/$web2/snapshots/$snap"
check "cut before the effect" test "$status" = 000
check "nothing happened" test "$(state ".vms[].snapshots[] | select(.id == \"$snap\") | .status")" = ok
disk3=$(state ".disks[] | select(.vm == \"$web2\") | select(.chain | length > 1) | .id" | head -1)
fault '{"point":"hotplug-fail"}'
attach "$proxy" "$disk3" "$snap" virtio_scsi
check "a failed hot-plug is a 400" test "$status" = 400
fault '{"path":"/diskattachments$","action":"status","status":409,"count":2,
    "detail":"[Cannot attach Virtual Disk. Related operation is currently in progress.]"}'
attach "$proxy" "$disk3" "$snap" virtio_scsi
attach "$proxy" "$disk3" "$snap" virtio_scsi
check "409 twice" test "$status" = 409
fault '{"point":"device-missing"}'
attach "$proxy" "$disk3" "$snap" virtio_scsi
check "then attached" test "$status" = 201
sleep 0.5
check "but no device comes" test ! -e "$dev/scsi-0QEMU_QEMU_HARDDISK_$disk3"
expect 200 DELETE "/vms/$proxy/diskattachments/$disk3"
remove_snapshot "$web2" "$snap"
control POST /expire-tokens >/dev/null
expect 401 GET /vms
take_token
fault '{"name":"h","path":"/clusters","action":"hang","count":0}'
call GET /clusters --max-time 1
check "a hanging call" test "$status" = 000
control DELETE /faults >/dev/null
expect 200 GET /clusters
fault '{"path":"/clusters","action":"reset"}'
check "a reset connection" grep -q -i 'reset' <(curl -sS --cacert "$box/ca.pem" -H "Authorization: Bearer $token" \
    -H 'Accept: application/json' "$url/api/clusters" 2>&1)
expect 200 GET /clusters
say "faults"

# --- An engine that restarts, a VM that migrates, a lock of somebody else, a domain that fills -------
control POST /engine '{"up":false}' >/dev/null
call GET /vms
check "nobody listens" test "$status" = 000
control POST /engine '{"up":true}' >/dev/null
expect 401 GET /vms # no token survives
take_token
expect 200 GET /vms
control POST /vms/web02 '{"action":"migrate","ms":1500}' >/dev/null
check "it migrates" is_status "/vms/$web2" .status migrating
expect 409 POST "/vms/$web2/snapshots" -d '{"description":"m","persist_memorystate":"false"}'
says 'because the VM is in migrating status'
wait_until 60 "it has migrated" is_status "/vms/$web2" .status up
control POST /vms/web02 '{"locked":true}' >/dev/null
expect 409 POST "/vms/$web2/snapshots" -d '{"description":"l","persist_memorystate":"false"}'
says 'Related operation is currently in progress'
control POST /vms/web02 '{"locked":false}' >/dev/null
check "an unlocked VM is not unlocked again" test "$(control POST /vms/web02 '{"locked":false}' 2>/dev/null | jq 'has("error")')" = true
size=$(call GET '/storagedomains?search=name%3Ddata1'; get '.storage_domain[0] | (.available | tonumber) + (.used | tonumber)')
control POST /storagedomains/data1 '{"available_bytes":5000000}' >/dev/null
free=$(call GET '/storagedomains?search=name%3Ddata1'; get '.storage_domain[0].available')
check "a domain with so much left" test "$free" -le 5000000
control POST /storagedomains/data1 "{\"size_bytes\":$size}" >/dev/null
say "restart, migration, lock, space"

# --- Freeze: the guest stands still ------------------------------------------------------------------
expect 409 POST "/vms/$cold/freezefilesystems" -d '{}'
says '"fault"'
expect 200 POST "/vms/$web3/freezefilesystems" -d '{}'
acked() { state ".vms[] | select(.id == \"$web3\") | .acked"; }
before=$(acked)
sleep 0.5
check "no write while frozen" test "$(acked)" = "$before"
expect 200 POST "/vms/$web3/thawfilesystems" -d '{}'
writes_again() { [ "$(acked)" -gt "$before" ]; }
wait_until 60 "it writes again" writes_again

# --- detach_only=false deletes the original ----------------------------------------------------------
snapshot "$web3"
disk4=$(state ".disks[] | select(.vm == \"$web3\") | select(.chain | length > 1) | .id" | head -1)
attach "$proxy" "$disk4" "$snap" virtio_scsi
check "attached" test "$status" = 201
expect 200 DELETE "/vms/$proxy/diskattachments/$disk4?detach_only=false"
wait_until 60 "the original disk is destroyed" is_gone "/disks/$disk4"
say "detach_only=false"

# --- Restore -----------------------------------------------------------------------------------------
expect 200 GET "/vms/$cold?all_content=true"
get .initialization.configuration.data >"$tmp/cold.ovf"
data1=$(control GET /state >/dev/null; call GET '/storagedomains?search=name%3Ddata1'; get '.storage_domain[0].id')
new_disk() { # FORMAT SPARSE DOMAIN [MORE]
    printf '{"alias":"new","provisioned_size":"8388608","format":"%s","sparse":"%s",
        "storage_domains":{"storage_domain":[{"id":"%s"}]}%s}' "$1" "$2" "$3" "${4:-}"
}
san1=$(call GET '/storagedomains?search=name%3Dsan1'; get '.storage_domain[0].id')
expect 409 POST /disks -d "$(new_disk raw true "$san1")"
expect 409 POST /disks -d "$(new_disk cow false "$data1")"
expect 409 POST /disks -d "$(new_disk raw false "$data1" ',"backup":"incremental"')"
expect 202 POST /disks -d "$(new_disk cow true "$data1")"
fresh=$(get .id)
check "a new disk is locked" test "$(get .status)" = locked
wait_until 60 "the disk is ok" is_status "/disks/$fresh" .status ok
expect 201 POST "/vms/$proxy/diskattachments" \
    -d "{\"active\":\"true\",\"interface\":\"virtio_scsi\",\"disk\":{\"id\":\"$fresh\"}}"
wait_until 60 "the device is there" test -e "$dev/scsi-0QEMU_QEMU_HARDDISK_$fresh"
head -c 8388608 /dev/urandom >"$tmp/data"
dd if="$tmp/data" of="$dev/scsi-0QEMU_QEMU_HARDDISK_$fresh" bs=1M conv=notrunc,fsync status=none
expect 200 DELETE "/vms/$proxy/diskattachments/$fresh"
expect 201 POST /vms -d "{\"name\":\"restored\",\"cluster\":{\"name\":\"c1\"},
    \"template\":{\"id\":\"$zero\"},\"memory\":1073741824,\"bios\":{\"type\":\"q35_ovmf\"}}"
restored=$(get .id)
wait_until 60 "the VM is down" is_status "/vms/$restored" .status down
expect 201 POST "/vms/$restored/diskattachments" -d "{\"active\":\"true\",\"bootable\":\"true\",
    \"interface\":\"virtio\",\"disk\":{\"id\":\"$fresh\"}}"
check "its disk holds what was written" qemu-img compare -q -f raw -F qcow2 "$tmp/data" \
    "$(state ".disks[] | select(.id == \"$fresh\") | .chain[0].path")"
expect 200 POST "/vms/$restored/start" -d '{}'
wait_until 60 "the VM is up" is_status "/vms/$restored" .status up
ovf() { # NAME [MORE]
    jq -n --rawfile ovf "$tmp/cold.ovf" --arg name "$1" --argjson more "${2:-{\}}" \
        '{name: $name, cluster: {name: "c1"},
          initialization: ({configuration: {type: "ovf", data: $ovf}} + $more)}'
}
expect 409 POST /vms -d "$(ovf again)"
says 'same identifier'
expect 201 POST /vms -d "$(ovf again '{"regenerate_ids": "true"}')"
expect 409 POST /vms -d "$(ovf again '{"regenerate_ids": "true"}')"
says 'already in use'
say "restore from JSON and OVF"

# --- Cold snapshot and merge, and back to a snapshot ---------------------------------------------------
snapshot "$cold"
expect 200 POST "/vms/$cold/snapshots/$snap/restore" -d '{}'
wait_until 60 "the VM is down" is_status "/vms/$cold" .status down
wait_until 60 "the lock is free" lock_is_free "$cold"
remove_snapshot "$cold" "$snap"

# --- An older engine -----------------------------------------------------------------------------------
control POST /version '{"version":"4.3.10"}' >/dev/null
expect 400 POST /imagetransfers \
    -d "{\"disk\":{\"id\":\"$fresh\"},\"direction\":\"download\",\"timeout_policy\":\"cancel\"}"
cold_disk=$(state ".disks[] | select(.vm == \"$cold\") | .id")
expect 201 POST /imagetransfers \
    -d "{\"disk\":{\"id\":\"$cold_disk\"},\"direction\":\"download\",\"format\":\"raw\"}"
transfer=$(get .id)
wait_until 60 "the transfer is ready" is_status "/imagetransfers/$transfer" .phase transferring
expect 200 POST "/imagetransfers/$transfer/finalize" -d '{}'
wait_until 60 "the transfer vanishes at its end" is_gone "/imagetransfers/$transfer"
say "an older engine"

# --- The end ---------------------------------------------------------------------------------------------
daemons=$(state '.vms[].daemon_pid | select(. > 0)')
kill -TERM $sandbox
check "the sandbox ends with success" wait $sandbox
for pid in $daemons; do
    check "storage daemon $pid is gone" test ! -e "/proc/$pid"
done
check "no mount is left" test "$(grep -c " $box/" /proc/self/mounts)" = 0
say "all is well"
