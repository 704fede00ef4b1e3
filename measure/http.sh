#!/usr/bin/env bash
# http.sh [SERVER] [PART...]   what a request of HTTP costs: instructions, system calls, memory
#
# SERVER: http_hello (default), or a command with {port} in it that answers GET / with 200 and a
# content-length. PART: instructions, calls, memory; all of them if none is named.
#
# instructions: user-space, under callgrind, for 64 connections and for the same with 16 requests
# under way on each; the difference of two runs with exact counts. calls: system calls per request
# under strace, in the same way. memory: resident bytes per connection that is kept open after one
# request, CONNECTIONS=10000 of them, held, closed, and held again.
source "$(dirname "$0")/lib.sh"
case ${1:-} in -h | --help) usage ;; esac
need awk
server=${1:-http_hello}
shift || true
[ $# -gt 0 ] || set -- instructions calls memory
build cargo build --release --manifest-path "$HERE/Cargo.toml" --target-dir "$HERE/target" -p load
case $server in
http_hello)
    build cargo build --release --manifest-path "$ROOT/Cargo.toml" \
        --target-dir "$ROOT/target" --example http_hello
    COMMAND="$ROOT/target/release/examples/http_hello --addr 127.0.0.1:{port} ${LARIAT_FLAGS:--q}"
    ;;
*{port}*) COMMAND=$server ;;
*) fail "not a server: '$server'. Give http_hello or a command with {port}" ;;
esac
REPLIES=own
FEW=4000 MANY=24000

# Instructions of a whole run with this depth and number of requests; sets TOTAL.
counted() {
    local out=$SCRATCH/callgrind.$1.$2
    start valgrind --tool=callgrind --callgrind-out-file="$out"
    load http --connections 64 --pipeline "$1" --messages "$2" --limit 240
    sleep 0.5 # the closing of the connections has to be in both runs alike
    end "$SERVER"
    TOTAL=$(awk '/^(summary|totals):/ { if ($2 > most) most = $2 } END { print most + 0 }' "$out")
    [ "$TOTAL" -gt 0 ] || fail "callgrind wrote no total: $(tail -n 1 "$LOG")"
}

instructions() {
    local depth few
    for depth in 1 16; do
        counted $depth $FEW
        few=$TOTAL
        counted $depth $MANY
        calculate "64 connections, %2d under way: %7.1f instructions per request\n" \
            "$depth, ($TOTAL - $few) / ($MANY - $FEW)"
    done
}

# The calls of a whole run, all together; sets TOTAL.
traced() {
    local out=$SCRATCH/strace.$1.$2 child
    start taskset -c 0 strace -c -f -o "$out"
    child=$(< "/proc/$SERVER/task/$SERVER/children")
    child=${child%% *}
    PIN=(taskset -c 1)
    load http --connections 64 --pipeline "$1" --messages "$2" --limit 240
    PIN=()
    sleep 0.5
    kill -TERM "$child"
    gone "$SERVER" 10 || fail "the server did not end on SIGTERM"
    wait "$SERVER" 2> /dev/null || true
    TOTAL=$(awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { sum += $4 } END { print sum + 0 }' "$out")
}

calls() {
    local depth few
    for depth in 1 16; do
        traced $depth $FEW
        few=$TOTAL
        traced $depth $MANY
        calculate "64 connections, %2d under way: %7.2f system calls per request\n" \
            "$depth, ($TOTAL - $few) / ($MANY - $FEW)"
    done
}

# Holds the connections, sets HELD to the resident bytes, closes them.
hold() {
    local pipe=$SCRATCH/pipe out=$SCRATCH/held holder turn
    rm -f "$pipe"
    mkfifo "$pipe"
    "$LOAD" http-idle --addr "$ADDR" --connections "$CONNECTIONS" --limit 100 \
        < "$pipe" > "$out" 2> "$SCRATCH/complaint" &
    holder=$!
    STARTED+=("$holder")
    exec 7> "$pipe"
    for ((turn = 0; turn < 1200; turn++)); do
        grep -q ready "$out" && break
        alive "$holder" || break
        sleep 0.05
    done
    sleep 1
    HELD=$(resident "$SERVER")
    exec 7>&-
    wait "$holder" || fail "holding connections: $(cat "$SCRATCH/complaint")"
    sleep 1
}

memory() {
    local before first closed
    CONNECTIONS=${CONNECTIONS:-10000}
    ulimit -n "$(ulimit -Hn)"
    start
    load http --messages 100
    before=$(resident "$SERVER")
    hold
    first=$HELD
    closed=$(resident "$SERVER")
    hold
    end "$SERVER"
    calculate "%d kept open after a request: %7.1f bytes each   all closed %7.1f   held again %7.1f\n" \
        "$CONNECTIONS, ($first - $before) / $CONNECTIONS, ($closed - $before) / $CONNECTIONS, ($HELD - $before) / $CONNECTIONS"
}

for part in "$@"; do
    case $part in
    instructions) need valgrind && instructions ;;
    calls) need strace taskset && calls ;;
    memory) memory ;;
    *) fail "no part '$part': instructions, calls or memory" ;;
    esac
done
