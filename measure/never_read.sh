#!/usr/bin/env bash
# never_read.sh [SERVER]   1,000 peers that send and never read: does the server stay bounded?
#
# SERVER: lariat (default, with -v), bare_mio, tokio_ct, or a command with {port} in it. PEERS=1000,
# OFFER=67108864 bytes that each has to send, HOLD=60 seconds at most.
#
# Every peer keeps sending until it would block, as long as its offer lasts. Prints a row every two
# seconds: peers still open, what they got rid of altogether, the server's resident memory, and the
# echo latency of one client that behaves. Then one line of JSON with the extremes, and the lines
# that the server logged about closed connections, with all numbers replaced by N and counted.
# Memory should stop growing at marks x peers, the other client should be served throughout, and a
# server with a write-stall deadline (lariat: 30 s) ends the peers and says why. Ends earlier once
# all peers have been ended.
source "$(dirname "$0")/lib.sh"
need awk
LARIAT_FLAGS=-v
choose "${1:-lariat}"
ulimit -n "$(ulimit -Hn)"
start
timeout 300 "$LOAD" never-read --addr "$ADDR" --pid "$SERVER" --connections "${PEERS:-1000}" \
    --offer "${OFFER:-$((64 << 20))}" --seconds "${HOLD:-60}" --limit 200 ||
    fail "the load generator gave up; the server's last line: $(tail -n 1 "$LOG")"
end "$SERVER"
echo "what the server logged about closed connections:"
grep -i clos "$LOG" | sed -E 's/[0-9][0-9.,:]*/N/g' | sort | uniq -c | sort -rn | head -n 12 ||
    echo "  nothing"
