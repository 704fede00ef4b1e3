#!/usr/bin/env bash
# syscalls.sh [SERVER]   system calls per message, per accepted connection and per MiB, under strace
#
# SERVER: lariat (default), blocking, own_bytes, bare_mio, std_threads, tokio_ct, or a command with
# {port} in it. Other servers that do not echo: REPLIES=own. Message size in bytes: SIZE=64.
#
# Prints a line each for: messages at 64 connections and at 1; whole lives of a connection (accepted,
# one message of 64 bytes, closed by the client), of many at a time and of one after the other; MiB
# echoed on one connection in messages of 1 MiB.
# Each is a sum and its parts by the name of the call, from the difference of two runs with exact
# counts, so start-up and shutdown cancel. Parts below 0.005 are left out.
#
# Server and strace run on core 0, the load generator on core 1. strace slows the server down, so with
# many connections one wait returns more events than at full speed. The counts in bulk depend on how
# much the kernel hands over at a time, and a connection falls into one of two patterns by chance:
# eight runs are made, the lowest is shown with its parts, then the sums of all in order. Compare the
# lowest and the middle with those of bare_mio.
source "$(dirname "$0")/lib.sh"
need strace awk taskset
choose "${1:-lariat}"
[ "$(nproc)" -ge 2 ] || fail "this needs two cores"
PIN=(taskset -c 1)

# counted OUT MODE OPTIONS...: the calls of a run, by name, into the file OUT.
counted() {
    local out=$1 child
    shift
    start taskset -c 0 strace -c -f -o "$out"
    child=$(< "/proc/$SERVER/task/$SERVER/children")
    child=${child%% *}
    load "$@" --limit 240 < /dev/null
    sleep 0.5 # the server notices the last of the closed connections
    kill -TERM "$child"
    gone "$SERVER" 10 || {
        kill -KILL "$child" 2> /dev/null || true
        fail "the server did not end on SIGTERM"
    }
    wait "$SERVER" 2> /dev/null || true
    grep -q total "$out" || fail "strace wrote no summary"
}

# difference WHAT FEW MANY COUNT: prints the calls per unit between the two files.
difference() {
    awk -v what="$1" -v units="$4" '
        $1 ~ /^[0-9.]+$/ && $NF != "total" { n[$NF] += FILENAME == ARGV[1] ? -$4 : $4 }
        END {
            for (name in n) if (n[name] / units >= 0.005 || n[name] / units <= -0.005) {
                sum += n[name] / units
                parts = parts sprintf("%s%s %.2f", parts == "" ? "" : ", ", name, n[name] / units)
            }
            printf "%-25s %6.2f  (%s)\n", what, sum, parts
        }' "$2" "$3"
}

size=${SIZE:-64}
for connections in 64 1; do
    counted "$SCRATCH/few" echo --connections $connections --size "$size" --messages 4000
    counted "$SCRATCH/many" echo --connections $connections --size "$size" --messages 24000
    difference "message, $connections connections" "$SCRATCH/few" "$SCRATCH/many" 20000
done
counted "$SCRATCH/few" idle --connections 100 --touch 64
counted "$SCRATCH/many" idle --connections 900 --touch 64
difference "connection's whole life" "$SCRATCH/few" "$SCRATCH/many" 800
counted "$SCRATCH/few" lives --messages 100
counted "$SCRATCH/many" lives --messages 900
difference "one life after the other" "$SCRATCH/few" "$SCRATCH/many" 800
counted "$SCRATCH/few" echo --size $((1 << 20)) --messages 20
for _ in 1 2 3 4 5 6 7 8; do # not in a pipe: what a subshell starts would not be cleaned up
    counted "$SCRATCH/many" echo --size $((1 << 20)) --messages 420
    difference "MiB in bulk, lowest" "$SCRATCH/few" "$SCRATCH/many" 400
done > "$SCRATCH/unsorted"
sort -k 5,5n "$SCRATCH/unsorted" > "$SCRATCH/bulk"
head -n 1 "$SCRATCH/bulk"
echo "MiB in bulk, all runs      $(awk '{ print $5 }' "$SCRATCH/bulk" | paste -sd ' ')"
