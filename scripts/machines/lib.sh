# Machines with Debian and systemd as process 1, in namespaces: an overlay for the files, a cable into one bridge. Source
# after lib.sh, with `dir` (scratch) and `cgroups` (a folder of cgroup 2) set, in namespaces that nothing else uses: all
# that is started and mounted here ends with them.
# shellcheck shell=bash disable=SC2154 # who sources it sets `root`, `tools`, `dir` and `cgroups`

# network: what the machines share. .1 is AWS's API, .2 the registry, .3 AWS's lifecycle hooks, .10 the service's host.
network() {
    local address
    ip link set lo up
    ip link add br0 type bridge
    for address in 10.77.0.{1,2,3}/24 169.254.169.254/32; do ip addr add "$address" dev br0; done
    ip link set br0 up
    cat >"$dir/hosts" <<'HOSTS'
127.0.0.1 localhost
10.77.0.10 deploys.internal
10.77.0.2 registry.internal
10.77.0.1 elasticloadbalancing.eu-west-1.amazonaws.com
10.77.0.3 autoscaling.eu-west-1.amazonaws.com
HOSTS
    mount --bind "$dir/hosts" /etc/hosts
}

# certificate: a CA, and a certificate for all that speaks TLS.
certificate() {
    mkdir "$dir/ca"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=machines -keyout "$dir/ca/ca.key" -out "$dir/ca/ca.crt" \
        -addext keyUsage=critical,keyCertSign 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=registry.internal -keyout "$dir/ca/key" -out "$dir/ca/csr" 2>/dev/null
    openssl x509 -req -in "$dir/ca/csr" -days 2 -CA "$dir/ca/ca.crt" -CAkey "$dir/ca/ca.key" -CAcreateserial \
        -out "$dir/ca/crt" 2>/dev/null -extfile <(
            echo "subjectAltName=DNS:registry.internal,DNS:*.eu-west-1.amazonaws.com,IP:10.77.0.1"
            echo "basicConstraints=CA:FALSE"
        )
}

# backends: AWS's API by moto, EC2's metadata service and lifecycle hooks, a registry that wants a login (ci, secret).
backends() {
    mkdir -p "$dir/cloud" "$dir/registry"
    htpasswd -Bbn ci secret >"$dir/htpasswd" 2>/dev/null
    cat >"$dir/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "10.77.0.2:443", tls: {certificate: $dir/ca/crt, key: $dir/ca/key}}
auth: {htpasswd: {realm: machines, path: $dir/htpasswd}}
YAML
    docker-registry serve "$dir/registry.yml" >"$dir/registry.log" 2>&1 &
    "$tools/venv/bin/moto_server" -H 10.77.0.1 -p 443 -s -c "$dir/ca/crt" -k "$dir/ca/key" >"$dir/moto.log" 2>&1 &
    python3 "$root/scripts/machines/cloud.py" "$dir/cloud" "$dir/ca/crt" "$dir/ca/key" >"$dir/cloud.log" 2>&1 &
    wait_for 60 "moto" curl -sS -m 2 --cacert "$dir/ca/ca.crt" https://10.77.0.1/
    wait_for 20 "the registry" curl -sS -m 2 --cacert "$dir/ca/ca.crt" https://registry.internal/v2/
}

# machine_new NAME IP LAYER: its files. LAYER `base` is a bare Debian, `packages` one that has a box's.
machine_new() {
    local name=$1 layers=$tools/machines/base here=$dir/machines/$1 unit
    [[ $3 == base ]] || layers=$tools/machines/$3:$layers
    mkdir -p "$here"/{upper,work,root,docker}
    echo "$2" >"$here/ip"
    touch "$here/boot_id"
    mount -t overlay "$name" -o "lowerdir=$layers,upperdir=$here/upper,workdir=$here/work" "$here/root"
    echo "$name" >"$here/root/etc/hostname"
    { cat "$dir/hosts" && echo "127.0.1.1 $name"; } >"$here/root/etc/hosts"
    : >"$here/root/etc/machine-id"
    rm -f "$here/root/etc/resolv.conf"
    echo 'options timeout:1 attempts:1' >"$here/root/etc/resolv.conf"
    # What needs a console, hardware or a mirror.
    for unit in console-getty getty@ systemd-sysctl systemd-modules-load systemd-udevd systemd-udev-trigger; do
        ln -sf /dev/null "$here/root/etc/systemd/system/$unit.service"
    done
    ln -sf /dev/null "$here/root/etc/systemd/system/apt-daily.timer"
    ln -sf /dev/null "$here/root/etc/systemd/system/apt-daily-upgrade.timer"
    cp "$dir/ca/ca.crt" "$here/root/usr/local/share/ca-certificates/machines.crt"
    chroot "$here/root" update-ca-certificates >/dev/null 2>&1
}

# machine_start NAME: boots it, and boots it again when it reboots.
machine_start() {
    machine_run "$1" >>"$dir/machines/$1/console" 2>&1 &
    wait_for 60 "$1, booted" machine_is_up "$1"
}

machine_run() {
    local name=$1 here=$dir/machines/$1 holder init code again=1
    while [[ -n $again ]]; do
        again=''
        mkdir -p "$cgroups/$name"
        (
            echo "$BASHPID" >"$cgroups/$name/cgroup.procs"
            exec unshare --net --mount --uts --ipc --pid --cgroup --fork --kill-child --propagation private \
                "$root/scripts/machines/init.sh" "$here" "$name" "$dir/share"
        ) &
        holder=$!
        until init=$(pgrep -P "$holder" -f init.sh); do sleep 0.05; done
        ip link del "v-$name" 2>/dev/null || true
        ip link add "v-$name" type veth peer name eth0 netns "$init"
        ip link set "v-$name" master br0 up
        # shellcheck disable=SC2016 # the inner shell expands it
        nsenter --target "$init" --net sh -euc '
            ip link set lo up
            ip addr add "$1/24" dev eth0
            ip link set eth0 up
            ip route add default via 10.77.0.1
        ' - "$(cat "$here/ip")"
        echo "$init" >"$here/pid"
        code=0
        wait "$holder" || code=$?
        rm -f "$here/pid"
        # SIGHUP is how a PID namespace ends by reboot(2).
        [[ $code -ne 129 ]] || again=1
    done
}

machine_is_up() { on "$1" systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; }

# machine_cut NAME: the power goes.
machine_cut() { kill -KILL "$(cat "$dir/machines/$1/pid")"; }

# on NAME COMMAND...: runs it there, as root who has logged in.
on() {
    local name=$1 pid
    shift
    pid=$(cat "$dir/machines/$name/pid" 2>/dev/null) || { echo "$name is down" && return 99; }
    nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wd env -i HOME=/root USER=root TERM=dumb \
        LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}
