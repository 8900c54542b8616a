#!/bin/sh
# Three members on this machine, until Ctrl-C: cluster.sh DETCD DIRECTORY [FIRST_PORT]
# Started again on the same directory, they go on where they were. Fails if a member does not start, or ends with an error.
set -eu
detcd=$1 directory=$2 port=${3:-2379}

client() { echo "http://127.0.0.1:$((port + 100 * $1))"; }
peer() { echo "http://127.0.0.1:$((port + 100 * $1 + 1))"; }

cluster="m0=$(peer 0),m1=$(peer 1),m2=$(peer 2)"
endpoints="$(client 0),$(client 1),$(client 2)"
mkdir -p "$directory"
members=
signals=0
# A terminal tells the members itself; a supervisor tells only this script.
trap 'signals=$((signals + 1)); kill $members 2>/dev/null || true' INT TERM
for i in 0 1 2; do
    "$detcd" --name "m$i" --data-dir "$directory/m$i" \
        --listen-client-urls "$(client $i)" --advertise-client-urls "$(client $i)" \
        --listen-peer-urls "$(peer $i)" --initial-advertise-peer-urls "$(peer $i)" \
        --initial-cluster "$cluster" --initial-cluster-state new 2>>"$directory/m$i.log" &
    members="$members $!"
done
echo "members $members, logs $directory/m*.log"
echo "export ETCDCTL_ENDPOINTS=$endpoints"

# A signal ends the wait and not yet the member, which is waited for again.
status_of() {
    while :; do
        before=$signals status=0
        wait "$1" || status=$?
        [ "$signals" -ne "$before" ] || return 0
    done
}

failed=0 i=0
for member in $members; do
    status_of "$member"
    # Whoever is told to end ends in order, or by the very signal (130, 143).
    case $signals:$status in
    *:0 | [1-9]*:130 | [1-9]*:143) ;;
    *)
        echo "m$i ended with status $status; the end of $directory/m$i.log:" >&2
        tail -n 5 "$directory/m$i.log" >&2
        failed=1
        ;;
    esac
    i=$((i + 1))
done
exit $failed
