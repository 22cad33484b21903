# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A whole Oxbow in one folder: private broker, sandbox cluster, coordinator and workers. Shared by
# deploy/quickstart and the integration and fault tests. Everything is started in the background
# with its pid in $cluster/pids and its log in $cluster/NAME.log, and ends by pid.
#
#   cluster=$tmp; . tests/lib/cluster.sh
#   cluster_start SPEC 3            # broker, sandbox, repository, coordinator, workers 1..3
#   ox backup --all                 # the CLI as the client user
#   ...
#   cluster_stop
#
# Needs: $top (the source tree), $bin (the programs), $cluster (an existing, short-named folder).

zone=${zone:-dc1}
cluster_lease_s=${cluster_lease_s:-10}
cluster_slots=${cluster_slots:-2}

cluster_pid() { cat "$cluster/pids/$1" 2>/dev/null; } # NAME
cluster_alive() { # NAME
    local pid
    pid=$(cluster_pid "$1") && kill -0 "$pid" 2>/dev/null
}

# Start a program in the background under a name. It ends with this shell's cluster_stop.
cluster_spawn() { # NAME COMMAND...
    local name=$1
    shift
    mkdir -p "$cluster/pids"
    "$@" >>"$cluster/$name.out" 2>>"$cluster/$name.log" </dev/null &
    echo $! >"$cluster/pids/$name"
    disown
}

# Send a signal: cluster_signal KILL worker2
cluster_signal() {
    kill -"$1" "$(cluster_pid "$2")"
}

# Stop one by name: TERM, and KILL after a limit. Forgets it.
cluster_end() { # NAME [SECONDS]
    local pid end=$((SECONDS + ${2:-60}))
    pid=$(cluster_pid "$1") || return 0
    kill -CONT "$pid" 2>/dev/null || true
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $end ]; then
            echo "cluster: $1 (pid $pid) did not end in time: killed" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    rm -f "$cluster/pids/$1"
}

cluster_kill() { # NAME: kill -9 and wait until it is gone
    local pid
    pid=$(cluster_pid "$1")
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    rm -f "$cluster/pids/$1"
}

cluster_wait_for() { # SECONDS TEXT COMMAND...
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        if [ -n "${cluster_watch:-}" ] && ! cluster_alive "$cluster_watch"; then
            echo "cluster: $cluster_watch ended while starting:" >&2
            tail -n 20 "$cluster/$cluster_watch.log" >&2
            return 1
        fi
        if [ $SECONDS -ge $end ]; then
            echo "cluster: not within $limit s: $what" >&2
            return 1
        fi
        sleep 0.1
    done
}

# --- The broker ----------------------------------------------------------------------------------
cluster_broker() { # [private-broker option]...
    "$top/deploy/rabbitmq/private-broker" start "$cluster/broker" "$@" >>"$cluster/broker.log" 2>&1
    # shellcheck disable=SC1091
    . "$cluster/broker/broker.env"
}

# The broker section of a configuration file, for one role.
cluster_broker_conf() { # coordinator|worker|client
    local user=${1^^}_USER file=${1^^}_PASSWORD_FILE
    printf 'broker:\n  host: %s\n  port: %s\n  vhost: %s\n  user: %s\n  password_file: %s\n' \
        "$HOST" "${cluster_tls:+$TLS_PORT}${cluster_tls:-$PORT}" "$VHOST" "${!user}" "${!file}" |
        sed "s/^  port: \([0-9]*\)tls\$/  port: \1/"
    if [ -n "${cluster_tls:-}" ]; then
        printf '  tls:\n    enabled: true\n    ca_file: %s\n' "$CA"
    fi
}

# --- The sandbox ---------------------------------------------------------------------------------
cluster_sandbox() { # SPEC [oxbow-sandbox option]...
    local spec=$1
    shift
    cluster_spawn sandbox "$bin/oxbow-sandbox" --spec "$spec" --dir "$cluster/sandbox" \
        --keep "$cluster/frozen" "$@"
    cluster_watch=sandbox cluster_wait_for 180 "the sandbox is ready" \
        test -s "$cluster/sandbox/sandbox.json"
}

sandbox_info() { jq -r "$1" "$cluster/sandbox/sandbox.json"; } # JQ_FILTER

# The true state of the sandbox, as JSON.
sandbox_control() { # PATH [curl option]...
    local path=$1
    shift
    curl -sS --fail-with-body --unix-socket "$(sandbox_info .control)" "http://sandbox$path" "$@"
}

# --- Oxbow ---------------------------------------------------------------------------------------
cluster_configs() { # NUMBER_OF_WORKERS
    local i
    {
        cluster_broker_conf coordinator
        cat <<EOF
ledger: $cluster/ledger.db
zones:
  - name: $zone
lease_s: $cluster_lease_s
log:
  level: ${cluster_log_level:-info}
${cluster_coordinator_more:-}
EOF
    } >"$cluster/coordinator.yaml"
    for ((i = 1; i <= $1; i++)); do
        {
            echo "name: worker$i"
            echo "zone: $zone"
            cluster_broker_conf worker
            cat <<EOF
engine:
  url: $(sandbox_info .url)
  user: $(sandbox_info .user)
  password_file: $(sandbox_info .password_file)
  ca_file: $(sandbox_info .ca)
proxy_vm: $(sandbox_info ".proxies[$((i - 1))].name")
device_dir: $(sandbox_info ".proxies[$((i - 1))].dev_dir")
repository:
  path: $cluster/repository
  pack_mib: ${cluster_pack_mib:-96}
slots:
  backup: $cluster_slots
  restore: 1
  upkeep: 2
reserve:
  repository_mib: ${cluster_reserve_mib:-64}
  storage_domain_mib: 64
log:
  level: ${cluster_log_level:-info}
${cluster_worker_more:-}
EOF
        } >"$cluster/worker$i.yaml"
    done
    cluster_broker_conf client >"$cluster/oxbow.yaml"
}

cluster_coordinator() {
    cluster_spawn coordinator "$bin/oxbow-coordinator" --config "$cluster/coordinator.yaml"
}

cluster_worker() { # NUMBER
    cluster_spawn "worker$1" "$bin/oxbow-worker" --config "$cluster/worker$1.yaml"
}

# Workers that the coordinator has heard of.
cluster_workers_up() {
    ox status --json | jq -s '[.[] | select(.type == "worker" and .state == "up")] | length'
}
cluster_has_workers() { [ "$(cluster_workers_up)" -ge "$1" ]; }

ox() { OXBOW_CONFIG="$cluster/oxbow.yaml" "$bin/oxbow" "$@"; }

cluster_start() { # SPEC NUMBER_OF_WORKERS [oxbow-sandbox option]...
    local spec=$1 count=$2 i
    shift 2
    cluster_broker ${cluster_tls:+--tls} &
    broker_starts=$!
    cluster_sandbox "$spec" "$@"
    wait $broker_starts
    broker_starts=
    # shellcheck disable=SC1091
    . "$cluster/broker/broker.env"
    "$bin/oxbow-worker" repo init "$cluster/repository" >/dev/null
    cluster_configs "$count"
    cluster_coordinator
    for ((i = 1; i <= count; i++)); do
        cluster_worker $i
    done
    cluster_wait_for 60 "$count workers are up" cluster_has_workers "$count"
}

# Everything that is still running, clients first. Safe to call at any time, and twice.
cluster_stop() {
    local file name
    for file in "$cluster"/pids/worker* "$cluster"/pids/coordinator "$cluster"/pids/*; do
        [ -e "$file" ] || continue
        name=$(basename "$file")
        [ "$name" = sandbox ] || cluster_end "$name"
    done
    cluster_end sandbox 60
    # One that is only being started could not be found yet.
    [ -z "${broker_starts:-}" ] || wait "$broker_starts" || true
    broker_starts=
    if [ -d "$cluster/broker" ]; then
        "$top/deploy/rabbitmq/private-broker" stop "$cluster/broker" >>"$cluster/broker.log" 2>&1 || true
    fi
}

# --- What must hold ------------------------------------------------------------------------------
# Nothing of ours is left: no snapshot on any VM but the active entry, no foreign disk on a proxy, no
# backup of the engine that is open.
cluster_leftovers() {
    sandbox_control /sandbox/state | jq -c '
        [ (.vms[] | .name as $vm | .snapshots[]? | select(.active | not) | {vm: $vm, snapshot: .id}),
          (.vms[] | select(.proxy) | .name as $vm | .attachments[]? | {vm: $vm, disk: .disk}),
          (.backups[]? | select(.phase != "succeeded" and .phase != "failed") | {vm, backup: .id}) ]'
}
cluster_nothing_left() { [ "$(cluster_leftovers)" = "[]" ]; }
