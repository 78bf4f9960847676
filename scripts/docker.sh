# A Docker engine for tests and the demo: the one that runs, else one of our own. Source after lib.sh.
# shellcheck shell=bash disable=SC2154 # lib.sh sets `root`

# Set by start_docker when the engine is ours; stop_docker ends that one and no other.
docker_pid=''

# start_docker: returns when an engine answers. After a crash (or a CI machine that killed everything) the state that
# dockerd left behind is cleared first; images and containers stay.
start_docker() {
    docker info >/dev/null 2>&1 && return
    has dockerd || die "no Docker engine answers and dockerd is not installed: run 'make install-tools'"
    local pidfile=/run/deployctl-dockerd.pid log=${TMPDIR:-/tmp}/deployctl-dockerd.log
    clear_stale_docker "$pidfile"
    # By way of a shell, so that the pid is known before dockerd has written its file. Its own session: Ctrl-C in a
    # terminal must reach the script, which stops what it started in order.
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root setsid bash -c 'echo $$ >"$1.starting"; exec dockerd --pidfile "$1" --group "$2"' \
        - "$pidfile" "$(id -gn)" >"$log" 2>&1 </dev/null &
    if ! wait_for 60 "dockerd" docker info; then
        say "dockerd's last lines ($log):" >&2
        tail -n 15 "$log" >&2
        docker_pid=$(cat "$pidfile.starting" 2>/dev/null) && stop_docker
        die "no Docker engine: start one, or mend what its log says"
    fi
    docker_pid=$(cat "$pidfile.starting")
}

# stop_docker: ends the engine that start_docker started, if it did. Containers end with it.
stop_docker() {
    [[ -n $docker_pid ]] || return 0
    stop_pid "$docker_pid" 30
    as_root rm -f /run/deployctl-dockerd.pid.starting
    docker_pid=''
}

# clear_stale_docker PIDFILE: what a dockerd that was killed leaves behind keeps the next one from starting: dockerd
# believes a pid file whose number another process has by now, and waits for a containerd whose socket is only a file.
clear_stale_docker() {
    clear_stale_pid "$1" dockerd
    clear_stale_pid /run/docker.pid dockerd
    clear_stale_pid /run/docker/containerd/containerd.pid containerd
    clear_stale_socket /run/containerd/containerd.sock
    clear_stale_socket /run/docker/containerd/containerd.sock
}

# clear_stale_pid FILE NAME: removes FILE unless the process it names is a NAME.
clear_stale_pid() {
    [[ -e $1 ]] || return 0
    local pid
    pid=$(cat "$1" 2>/dev/null) || pid=''
    if ! is_alive "$pid" || [[ $(cat "/proc/$pid/comm") != "$2" ]]; then as_root rm -f "$1"; fi
}

# clear_stale_socket PATH: removes it unless a process is bound to it.
clear_stale_socket() {
    [[ -S $1 ]] || return 0
    grep -q " \(/var\)\?$1\$" /proc/net/unix || as_root rm -f "$1"
}
