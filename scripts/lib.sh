# Shell functions that the scripts share. Source it; it runs nothing by itself.
# shellcheck shell=bash disable=SC2034 # who sources it uses them

# The folder of this checkout.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where tools that are not Debian packages go (Python's, cargo-deny, compose version 2). Tests look here too.
tools=${DEPLOYCTL_TOOLS:-$root/target/tools}

if [[ -t 1 ]]; then
    bold=$'\e[1m' plain=$'\e[0m'
else
    bold='' plain=''
fi

# step TEXT: a heading, for a person who watches.
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
# say TEXT: a line below it.
say() { printf '%s\n' "$*"; }
# die TEXT: one line on stderr that names the thing and the next act; exit 1.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it as root, by sudo where this is not root.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        die "$1 needs root, and there is no sudo here: run this as root"
    fi
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds. On time-out, one line that names WHAT; returns 1.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    local deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            say "gave up on $what after $seconds s" >&2
            return 1
        fi
        sleep 0.2
    done
}

# port_is_free PORT: nobody listens there on loopback.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port: prints a port on which nobody listens. Below the range from which the kernel takes ports for outgoing
# connections, so that none of those can take it first.
free_port() {
    local port tries
    for ((tries = 0; tries < 200; tries++)); do
        port=$((12000 + RANDOM % 18000))
        if port_is_free "$port"; then
            printf '%s\n' "$port"
            return
        fi
    done
    die "found no free port between 12000 and 30000"
}

# is_alive PID: it runs. A process that was killed and that nobody waits for (a zombie) does not.
is_alive() { [[ -n ${1:-} ]] && grep -q '^State:[[:space:]][^ZX]' "/proc/$1/status" 2>/dev/null; }

# stop_pid PID [SECONDS]: SIGTERM, then SIGKILL when it has not gone after SECONDS (10).
stop_pid() {
    local pid=$1 deadline=$((SECONDS + ${2:-10}))
    is_alive "$pid" || return 0
    signal TERM "$pid"
    while is_alive "$pid"; do
        if ((SECONDS >= deadline)); then
            signal KILL "$pid"
            break
        fi
        sleep 0.1
    done
}

# signal NAME PID: as root only where the process is not ours (dockerd).
signal() { kill "-$1" "$2" 2>/dev/null || { [[ $EUID -ne 0 ]] && is_alive "$2" && as_root kill "-$1" "$2"; } || true; }
