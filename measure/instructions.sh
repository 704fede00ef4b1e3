#!/usr/bin/env bash
# instructions.sh [SERVER]   user-space instructions per message, under callgrind
#
# SERVER: lariat (default), blocking, own_bytes, bare_mio, std_threads, tokio_ct, or a command with
# {port} in it. Other servers that do not echo: REPLIES=own. Message size in bytes: SIZE=64.
#
# Prints one line for 64 connections and one for 1. Each is the difference of two runs with exact
# message counts, divided by the difference of the counts, so start-up, accepts and shutdown cancel.
# With 64 connections one wait returns many events and its cost is shared; with 1 every message pays
# for a whole turn of the loop. The kernel's work and clock readings (vDSO) are not in it. Two runs
# of one binary differ by less than 1 %; other work on the machine hardly matters.
source "$(dirname "$0")/lib.sh"
need valgrind awk
choose "${1:-lariat}"
FEW=4000 MANY=24000

# Instructions of a whole run with this many connections and messages; sets TOTAL.
run() {
    local out=$SCRATCH/callgrind.$1.$2
    start valgrind --tool=callgrind --callgrind-out-file="$out"
    load echo --connections "$1" --messages "$2" --size "${SIZE:-64}" --limit 240
    sleep 0.5 # the closing of the connections has to be in both runs alike
    end "$SERVER"
    TOTAL=$(awk '/^(summary|totals):/ { if ($2 > most) most = $2 } END { print most + 0 }' "$out")
    [ "$TOTAL" -gt 0 ] || fail "callgrind wrote no total: $(tail -n 1 "$LOG")"
}

for connections in 64 1; do
    run $connections $FEW
    few=$TOTAL
    run $connections $MANY
    calculate "%3d connections: %7.1f instructions per message  (%d for $FEW, %d for $MANY)\n" \
        "$connections, ($TOTAL - $few) / ($MANY - $FEW), $few, $TOTAL"
done
