#!/bin/sh
# Three members on this machine, until Ctrl-C: cluster.sh DETCD DIRECTORY [FIRST_PORT]
# Started again on the same directory, they go on where they were.
set -eu
detcd=$1 directory=$2 port=${3:-2379}

client() { echo "http://127.0.0.1:$((port + 100 * $1))"; }
peer() { echo "http://127.0.0.1:$((port + 100 * $1 + 1))"; }

cluster="m0=$(peer 0),m1=$(peer 1),m2=$(peer 2)"
endpoints="$(client 0),$(client 1),$(client 2)"
mkdir -p "$directory"
members=
# A terminal tells the members itself; a supervisor tells only this script.
trap 'kill $members 2>/dev/null || true' INT TERM
for i in 0 1 2; do
    "$detcd" --name "m$i" --data-dir "$directory/m$i" \
        --listen-client-urls "$(client $i)" --advertise-client-urls "$(client $i)" \
        --listen-peer-urls "$(peer $i)" --initial-advertise-peer-urls "$(peer $i)" \
        --initial-cluster "$cluster" --initial-cluster-state new 2>>"$directory/m$i.log" &
    members="$members $!"
done
echo "members $members, logs $directory/m*.log"
echo "export ETCDCTL_ENDPOINTS=$endpoints"
# The first wait ends at the signal, the others when the members have ended.
for member in $members; do
    wait "$member" || wait "$member" || true
done
