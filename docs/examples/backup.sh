#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ask Oxbow for a backup of one VM and wait for its end, with nothing but amqp-tools and jq: a client
# that knows only docs/protocol.md.
#
# usage: backup.sh VM       HOST, PORT, AUTHFILE and WAIT_S (seconds without any reply; default 3600)
#                           come from the environment
#
# AUTHFILE holds two lines, "username:oxbow-client" and "password:..." (no space after the colon), and
# is for your eyes only.
set -euo pipefail
vm=${1:?usage: backup.sh VM}
connect=(--server="${HOST:-localhost}" --port="${PORT:-5672}" --authfile="${AUTHFILE:?}")

# A queue for the replies. Clients may declare what is called oxbow.reply.*
queue=$(amqp-declare-queue "${connect[@]}" -d -q "oxbow.reply.backup-sh-$(cat /proc/sys/kernel/random/uuid)")
trap 'amqp-delete-queue "${connect[@]}" -q "$queue" >/dev/null' EXIT

# amqp-publish cannot set the property `type`, so the body says it. -p makes the message persistent.
amqp-publish "${connect[@]}" -e oxbow.requests -r request -p -C application/json -t "$queue" \
    -b "$(jq -cn --arg vm "$vm" '{type: "oxbow.backup.v1", select: {names: [$vm]}}')"

while reply=$(timeout "${WAIT_S:-3600}" amqp-consume "${connect[@]}" -q "$queue" -p 1 -c 1 cat); do
    case $(jq -r .type <<<"$reply") in
    oxbow.accepted.v1) jq -r '"accepted as " + .request' <<<"$reply" ;;
    oxbow.refused.v1) jq -r '"refused: " + .error.message' <<<"$reply"; exit 4 ;;
    oxbow.outcome.v1) jq -r '"\(.vm_name) \(.status) \(.point // .error.message // "")"' <<<"$reply" ;;
    oxbow.finished.v1)
        jq -r '"finished: " + .status' <<<"$reply"
        [ "$(jq -r .status <<<"$reply")" = succeeded ]
        exit
        ;;
    esac
done
echo "no reply: is the coordinator running?" >&2
exit 7
