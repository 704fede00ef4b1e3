#!/usr/bin/env bash
# descriptors.sh [SERVER]   120 clients for a server that may open 64 descriptors
#
# SERVER: lariat (default), bare_mio, tokio_ct, or a command with {port} in it. CLIENTS=120,
# DESCRIPTORS=64, HOLD=5 seconds.
#
# Prints how many clients were served, left waiting and turned away; the server's CPU time while it
# is full, in percent of a core, for HOLD seconds with nobody sending and as long again with every
# served client sending four messages a second; the slowest round of those; and, five times over, the
# milliseconds from a served client's leaving to the first answer to a client that had none. "Roused"
# counts how often that took a fresh connection, because those already waiting were not looked at
# within a second. A server that spins while it is full shows up as a whole core.
source "$(dirname "$0")/lib.sh"
need awk prlimit
choose "${1:-lariat}"
DESCRIPTORS=${DESCRIPTORS:-64}
start prlimit --nofile="$DESCRIPTORS:$DESCRIPTORS"
load crowd --connections "${CLIENTS:-120}" --pid "$SERVER" --seconds "${HOLD:-5}" --limit 100
alive "$SERVER" || fail "the server has ended: $(tail -n 1 "$LOG")"
end "$SERVER"
delays=$(sed -E 's/.*"first_new_echo_ms":\[([^]]*)\].*/\1/; s/,/ /g' <<< "$RESULT")
cat << END
$(field clients) clients, $DESCRIPTORS descriptors: $(field served) served, $(field waiting_when_full) left waiting, $(field turned_away) turned away in all
server CPU while full:     $(field cpu_percent_full_and_quiet) % with nobody sending, $(field cpu_percent_full_and_serving) % with $(field echoes_while_full) echoes to those served
slowest round of echoes:   $(field slowest_round_ms) ms
first new echo after a descriptor was free, ms: $delays  (roused $(field needed_rousing) times)
END
