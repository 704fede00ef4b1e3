# Shared by the scripts in this folder; to be sourced. What they all do alike: build what they need,
# start a server on a free port, wait until it listens, and end what they started, whatever happens.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
BIN=$HERE/target/release
LOAD=$BIN/load
SCRATCH=$(mktemp -d)
STARTED=() # process ids; nothing else is ever ended

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# Prints the header of the calling script, without the comment signs.
usage() {
    awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
    exit 0
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" > /dev/null || fail "$tool is missing; README.md says how to install it"
    done
}

alive() {
    kill -0 "$1" 2> /dev/null
}

# Waits at most $2 seconds for a process to end.
gone() {
    local turn
    for ((turn = 0; turn < $2 * 20; turn++)); do
        alive "$1" || return 0
        sleep 0.05
    done
    return 1
}

# Ends a process of ours: asks, then insists.
end() {
    alive "$1" || return 0
    kill -TERM "$1" 2> /dev/null || true
    gone "$1" 8 || kill -KILL "$1" 2> /dev/null || true
    wait "$1" 2> /dev/null || true
}

# What still runs when the script ends is not asked first. `wait` keeps the shell from telling about it.
clean_up() {
    local status=$? pid
    for pid in "${STARTED[@]}"; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    wait 2> /dev/null || true
    rm -rf "$SCRATCH"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build() {
    "$@" > "$SCRATCH/build" 2>&1 || {
        tail -n 30 "$SCRATCH/build" >&2
        fail "this did not build: $*"
    }
}

# Sets COMMAND from the first argument of a script: a name (lariat, blocking, companions, with_timer,
# with_filter, own_bytes, bare_mio, std_threads, tokio_ct) or a whole command with {port} in it. Builds
# the load generator and what the name stands for.
# REPLIES is what the server answers with, for the load generator.
choose() {
    REPLIES=${REPLIES:-echo}
    case ${1:-lariat} in -h | --help) usage ;; esac
    build cargo build --release --manifest-path "$HERE/Cargo.toml" --target-dir "$HERE/target"
    case ${1:-lariat} in
    lariat)
        build cargo build --release --manifest-path "$ROOT/Cargo.toml" \
            --target-dir "$ROOT/target" --example echo_reactor
        COMMAND="$ROOT/target/release/examples/echo_reactor --addr 127.0.0.1:{port} ${LARIAT_FLAGS:--q}"
        ;;
    blocking)
        build cargo build --release --manifest-path "$ROOT/Cargo.toml" \
            --target-dir "$ROOT/target" --example echo_blocking
        COMMAND="$ROOT/target/release/examples/echo_blocking --addr 127.0.0.1:{port} --max-conns 10000 -q"
        ;;
    own_bytes | companions | with_timer | with_filter)
        build cargo build --release --manifest-path "$HERE/own_bytes/Cargo.toml" \
            --target-dir "$HERE/target"
        case $1 in
        companions) COMMAND="$BIN/with_timer --threads {port}" ;;
        *) COMMAND="$BIN/$1 {port}" ;;
        esac
        [ "$1" != own_bytes ] || REPLIES=own
        ;;
    bare_mio | std_threads | tokio_ct) COMMAND="$BIN/$1 {port}" ;;
    *{port}*) COMMAND=$1 ;;
    *) fail "not a server: '$1'. Give lariat, blocking, companions, with_timer, with_filter, own_bytes, bare_mio, std_threads, tokio_ct or a command with {port}" ;;
    esac
}

# Does anything listen on this port? The kernel's table is read, because a connection made to find
# out would be counted with the server's work.
listening() {
    grep -qsE "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$1") [0-9A-F]+:0000 0A " \
        /proc/net/tcp /proc/net/tcp6
}

# start [PREFIX...]: starts COMMAND behind a prefix such as strace. Sets PORT, ADDR, SERVER (process
# id) and LOG (what it prints).
start() {
    PORT=$("$LOAD" free-port)
    ADDR=127.0.0.1:$PORT
    LOG=$SCRATCH/log.$PORT
    local words turn
    read -ra words <<< "${COMMAND//\{port\}/$PORT}"
    "$@" "${words[@]}" > "$LOG" 2>&1 < /dev/null &
    SERVER=$!
    STARTED+=("$SERVER")
    for ((turn = 0; turn < 400; turn++)); do
        listening "$PORT" && return
        alive "$SERVER" || break
        sleep 0.05
    done
    tail -n 5 "$LOG" >&2
    fail "the server does not listen on $ADDR: ${words[*]}"
}

# load MODE [OPTIONS...]: runs the load generator against the server, behind PIN if the script has
# set it; its result is in RESULT.
PIN=()
load() {
    RESULT=$("${PIN[@]}" "$LOAD" "$@" --addr "$ADDR" --replies "$REPLIES") || {
        tail -n 5 "$LOG" >&2
        fail "the load generator gave up (the server's last lines are above)"
    }
}

# field NAME: one number of RESULT.
field() {
    sed -E "s/.*\"$1\":([-0-9.]+).*/\1/" <<< "$RESULT"
}

# resident PID: resident bytes of a process.
resident() {
    awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"
}

threads() {
    awk '/^Threads:/ { print $2 }' "/proc/$1/status"
}

calculate() {
    awk "BEGIN { printf \"$1\", $2 }"
}
