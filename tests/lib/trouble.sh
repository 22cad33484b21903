# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Troubles that a test can make at run time; after functions.sh and cluster.sh.
#
#   relay_start broker1 localhost "$PORT"     a relay (tests/lib/relay) under that name; its port is
#   relay_port broker1                        printed by this
#   relay broker1 stall                       ... and this tells it what to do
#
#   with_io_faults NAME PATH COMMAND...       run COMMAND; its file calls under PATH follow the rules
#   io_faults NAME 'write error=EIO'          in force from now on (tests/lib/io_faults); 'none' ends it
#   io_faults_log NAME                        the calls so far

relay_start() { # NAME HOST PORT
    mkdir -p "$cluster/relay"
    cluster_spawn "relay.$1" "$top/tests/lib/relay" serve "$cluster/relay/$1" "$2:$3"
    cluster_watch=relay.$1 cluster_wait_for 20 "relay $1 listens" test -s "$cluster/relay/$1/port"
}
relay_port() { cat "$cluster/relay/$1/port"; } # NAME
relay() { # NAME COMMAND...
    local name=$1 answer
    shift
    answer=$("$top/tests/lib/relay" "$cluster/relay/$name" "$@") || {
        echo "relay $name: $answer" >&2
        return 1
    }
}

# Let a worker, coordinator or client of the cluster reach its broker through a relay.
relay_broker() { # CONFIGURATION_FILE RELAY
    sed -i "/^broker:/,/^[^ ]/{s/^  host: .*/  host: localhost/;s/^  port: .*/  port: $(relay_port "$2")/}" "$1"
}

io_faults() { # NAME RULES
    mkdir -p "$cluster/io_faults"
    printf '%s\n' "${2/#none/}" >"$cluster/io_faults/$1.new"
    mv "$cluster/io_faults/$1.new" "$cluster/io_faults/$1.rules"
}
io_faults_log() { cat "$cluster/io_faults/$1.log"; } # NAME
# The variables for it, in $io_faults_env: for who starts the program in another way.
io_faults_env() { # NAME PATH
    [ -e "$cluster/io_faults/$1.rules" ] || io_faults "$1" none
    io_faults_env=(LD_PRELOAD="$bin/../lib/io_faults.so" IO_FAULTS_PATH="$2"
        IO_FAULTS_CONTROL="$cluster/io_faults/$1.rules" IO_FAULTS_LOG="$cluster/io_faults/$1.log")
}
with_io_faults() { # NAME PATH COMMAND...
    io_faults_env "$1" "$2"
    shift 2
    env "${io_faults_env[@]}" "$@"
}
