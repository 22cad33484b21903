# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The sandbox's engine by its own API, as an operator or another program uses it; after functions.sh
# and cluster.sh.

# api METHOD PATH [BODY]: the answer on standard output; fails on an HTTP error.
api() {
    [ -n "${api_token:-}" ] || api_login
    curl -sS --fail-with-body --cacert "$(sandbox_info .ca)" -X "$1" -H "Authorization: Bearer $api_token" \
        -H 'Accept: application/json' -H 'Content-Type: application/json' ${3:+-d "$3"} \
        "$(sandbox_info .url)/api$2"
}
api_login() {
    api_token=$(curl -sS --fail-with-body --cacert "$(sandbox_info .ca)" \
        -H 'Accept: application/json' -d grant_type=password -d scope=ovirt-app-api \
        --data-urlencode "username=$(sandbox_info .user)" \
        --data-urlencode "password=$(cat "$(sandbox_info .password_file)")" \
        "$(sandbox_info .url)/sso/oauth/token" | jq -r .access_token)
}

vm_id() { # NAME
    sandbox_control /sandbox/state | jq -r --arg name "$1" '.vms[] | select(.name == $name) | .id'
}
first_disk() { # VM_ID
    sandbox_control /sandbox/state |
        jq -r --arg id "$1" '.vms[] | select(.id == $id) | .attachments[0].disk'
}

# Each sets $made to the id of what it made, and returns when that is usable.
make_snapshot() { # VM_ID DESCRIPTION
    made=$(api POST "/vms/$1/snapshots" "$(jq -n --arg text "$2" \
        '{description: $text, persist_memorystate: "false"}')" | jq -r .id)
    wait_until 60 "snapshot '$2' is ok" is_usable "/vms/$1/snapshots/$made" snapshot_status
    wait_until 60 "VM $1 is not locked" is_unlocked "$1"
}
make_backup() { # VM_ID DESCRIPTION
    made=$(api POST "/vms/$1/backups" "$(jq -n --arg text "$2" '{description: $text}')" | jq -r .id)
    wait_until 60 "backup '$2' is ready" backup_is "$1" "$made" ready
}
make_disk() { # NAME DESCRIPTION
    local domain
    domain=$(api GET /storagedomains | jq -r '[.storage_domain[] | select(.type == "data")][0].id')
    made=$(api POST /disks "$(jq -n --arg name "$1" --arg text "$2" --arg domain "$domain" \
        '{alias: $name, description: $text, format: "cow", sparse: "true", provisioned_size: "1048576",
          storage_domains: {storage_domain: [{id: $domain}]}}')" | jq -r .id)
    wait_until 60 "disk '$1' is ok" is_usable "/disks/$made" status
}
make_vm() { # NAME DESCRIPTION
    made=$(api POST /vms "$(jq -n --arg name "$1" --arg text "$2" --arg cluster \
        "$(api GET /clusters | jq -r '.cluster[0].id')" '{name: $name, description: $text,
          cluster: {id: $cluster}, template: {name: "Blank"}}')" | jq -r .id)
    wait_until 60 "VM '$1' is down" vm_is "$made" down
}
attach_disk() { # VM_ID DISK_ID [SNAPSHOT_ID]
    api POST "/vms/$1/diskattachments" "$(jq -n --arg disk "$2" --arg snapshot "${3:-}" \
        '{active: "true", bootable: "false", interface: "virtio_scsi",
          disk: ({id: $disk} + if $snapshot == "" then {} else {snapshot: {id: $snapshot}} end)}')" >/dev/null
}
# A snapshot's disk is downloaded, a disk alone is uploaded to. Nobody uses it: it stays for an hour.
open_transfer() { # DISK_ID [VM_ID SNAPSHOT_ID]
    local volume=
    [ -z "${3:-}" ] || volume=$(api GET "/vms/$2/snapshots/$3/disks" | jq -r --arg disk "$1" \
        '.disk[] | select(.id == $disk) | .image_id')
    made=$(api POST /imagetransfers "$(jq -n --arg disk "$1" --arg volume "$volume" \
        '{format: "raw", inactivity_timeout: "3600"} + if $volume == "" then
          {disk: {id: $disk}, direction: "upload"} else {snapshot: {id: $volume}, direction: "download"} end')" |
        jq -r .id)
    wait_until 60 "transfer $made is ready" transfer_is "$made" transferring
}
describe_disk() { # DISK_ID DESCRIPTION
    api PUT "/disks/$1" "$(jq -n --arg text "$2" '{description: $text}')" >/dev/null
}

is_usable() { [ "$(api GET "$1" | jq -r ".$2")" = ok ]; }      # PATH MEMBER
backup_is() { [ "$(api GET "/vms/$1/backups/$2" | jq -r .phase)" = "$3" ]; } # VM_ID BACKUP_ID PHASE
vm_is() { [ "$(api GET "/vms/$1" | jq -r .status)" = "$2" ]; } # VM_ID STATUS
transfer_is() { # TRANSFER_ID PHASE
    [ "$(api GET "/imagetransfers/$1" | jq -r .phase)" = "$2" ]
}
exists() { api GET "$1" >/dev/null 2>&1; }                     # PATH
is_gone() { ! exists "$1"; }                                   # PATH
is_unlocked() { # VM_ID
    [ "$(sandbox_control /sandbox/state | jq -r --arg id "$1" \
        '.vms[] | select(.id == $id) | .lock')" = free ]
}
