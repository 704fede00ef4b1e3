#!/usr/bin/env bash
# memory.sh [SERVER]   resident bytes of the server per idle connection
#
# SERVER: lariat (default), with_timer and with_filter (a timer, or a filter that changes nothing, on
# each connection), blocking, companions (blocking, with a timer on each connection), bare_mio,
# std_threads, tokio_ct, or a command with {port} in it. Connections held: CONNECTIONS=10000; fewer
# for the servers of threads.
#
# Prints one line for connections that were never used and one for connections that carried 64 KiB
# each, for a fresh server each: bytes per connection while they are held, what is left per
# connection after all have closed, and held a second time. All are the growth of VmRSS since the
# server was warmed up with 100 messages, divided by the number of connections. What is left after
# closing is memory that the allocator keeps; it is fine if the second time costs no more than the
# first. The kernel's own memory for sockets and threads is not in it. "Threads" are those of the
# process while the connections are held, per connection.
source "$(dirname "$0")/lib.sh"
need awk prlimit
choose "${1:-lariat}"
CONNECTIONS=${CONNECTIONS:-10000}
ulimit -n "$(ulimit -Hn)"

# hold BYTES: opens the connections, echoes BYTES on each, sets HELD to the resident
# bytes and THREADS to their number, closes.
hold() {
    local pipe=$SCRATCH/pipe out=$SCRATCH/held holder turn
    rm -f "$pipe"
    mkfifo "$pipe"
    "$LOAD" idle --addr "$ADDR" --connections "$CONNECTIONS" --touch "$1" --limit 100 \
        < "$pipe" > "$out" 2> "$SCRATCH/complaint" &
    holder=$!
    STARTED+=("$holder")
    exec 7> "$pipe"
    for ((turn = 0; turn < 1200; turn++)); do
        grep -q ready "$out" && break
        alive "$holder" || break
        sleep 0.05
    done
    sleep 1 # the server accepts the last ones
    HELD=$(resident "$SERVER")
    THREADS=$(threads "$SERVER")
    exec 7>&-
    wait "$holder" || fail "holding connections: $(cat "$SCRATCH/complaint")"
    sleep 1
}

echo "$CONNECTIONS connections; bytes per connection"
for bytes in 0 65536; do
    start
    load echo --messages 100
    before=$(resident "$SERVER")
    hold "$bytes"
    first=$HELD
    closed=$(resident "$SERVER")
    hold "$bytes"
    end "$SERVER"
    calculate "after %5d bytes on each: held %7.1f   all closed %7.1f   held again %7.1f   threads %.2f\n" \
        "$bytes, ($first - $before) / $CONNECTIONS, ($closed - $before) / $CONNECTIONS, ($HELD - $before) / $CONNECTIONS, $THREADS / $CONNECTIONS"
done
