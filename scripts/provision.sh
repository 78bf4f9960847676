#!/usr/bin/env bash
# Makes this machine a box of the fleet, or the host of the deployment service. Run it again after every change: what is
# as it should be stays untouched.
#
#   scripts/provision.sh box --environment ENV --roles ROLE[,ROLE...] --compose DIR [OPTION...]
#   scripts/provision.sh service [--redis-password FILE] [OPTION...]
#
#   --config FILE           deployctl's configuration; see scripts/config
#   --secret FILE           goes to /etc/deployctl/, for root (and the service) only: token, redis-url; once for each
#   --join ADDRESS          a Serf agent to join; once for each
#   --serf-key FILE         the output of `serf keygen`, the same on every machine; or
#   --plain-gossip          ... without encryption, on a network that you trust
#   --name NAME             of this machine in the fleet (default: the host's)
#   --zone ZONE             of this box, if it has one: boxes that fail together
#   --compose DIR           the compose files, ROLE.yml for each role
#   --redis-password FILE   run Redis on the service's host, with this password
#   --package FILE          install deployctl from a .deb or an .rpm (`make packages`); one that is installed needs no option
#   --binary FILE           without a package: the program (default: target/release/deployctl), goes below /usr/local
#   --root DIR              put files below DIR, an image that is being built; installs and starts nothing
#   --dry-run               say what would happen
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"

usage() {
    sed -n '5,6s/^#   //p' "$0" >&2
    die "$*; the head of this script explains every option"
}

kind=${1:-}
[[ $kind =~ ^(box|service)$ ]] || usage "say what this machine shall be: box or service"
shift
config='' environment='' roles='' compose='' zone='' serf_key='' plain_gossip='' redis_password='' prefix='' dry_run=''
name=$(uname -n) package='' binary=''
secrets=() join=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --plain-gossip) plain_gossip=1 && shift && continue ;;
        --dry-run) dry_run=1 && shift && continue ;;
    esac
    [[ $# -ge 2 ]] || usage "$1 needs a value, or is no option"
    case $1 in
        --config) config=$2 ;;
        --secret) secrets+=("$2") ;;
        --join) join+=("$2") ;;
        --serf-key) serf_key=$2 ;;
        --name) name=$2 ;;
        --environment) environment=$2 ;;
        --roles) roles=$2 ;;
        --compose) compose=$2 ;;
        --zone) zone=$2 ;;
        --redis-password) redis_password=$2 ;;
        --package) package=$2 ;;
        --binary) binary=$2 ;;
        --root) prefix=${2%/} ;;
        *) usage "no such option: $1" ;;
    esac
    shift 2
done

# find_binary: the program that this machine has, or will have; what it says of the configuration counts.
find_binary() {
    if [[ -n $package ]]; then
        [[ -z $prefix && -z $binary ]] || usage "--package goes neither with --root nor with --binary"
        is_file --package "$package"
        unpacked=$(mktemp -d)
        case $package in
            *.deb) dpkg-deb --extract "$package" "$unpacked" ;;
            *.rpm) rpm2cpio "$package" | cpio --extract --quiet --make-directories --directory "$unpacked" ;;
            *) die "--package $package is neither a .deb nor an .rpm" ;;
        esac
        binary=$unpacked/usr/bin/deployctl
    elif [[ -e $prefix/usr/bin/deployctl ]]; then
        [[ -z $binary ]] || die "deployctl is installed here as a package: give --package instead of --binary, or remove it first"
        packaged=1 binary=$prefix/usr/bin/deployctl
    fi
    packaged=${package:-${packaged:-}} binary=${binary:-$root/target/release/deployctl}
}

# Everything is checked before anything is changed.
is_file() { [[ -f $2 ]] || die "$1 $2 is not a file"; }
is_name() { [[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9._:-]*$ ]] || die "$1 $2 is not a name: use a-z, 0-9, '-', '_' and '.'"; }
is_place() { [[ $2 =~ ^[a-z0-9][a-z0-9_-]{0,62}$ ]] || die "$1 $2 is no role or environment: use a-z, 0-9, '-' and '_', at most 63"; }
[[ -n $config ]] || usage "--config is missing"
packaged='' unpacked=''
trap 'rm -rf "$unpacked"' EXIT
find_binary
[[ -f $binary ]] || die "$binary is not there: run 'make build', or name another with --binary, or a --package"
for file in "$config" "${secrets[@]}" ${redis_password:+"$redis_password"}; do is_file "the file" "$file"; done
"$binary" --version >/dev/null || die "$binary does not run on this machine"
"$binary" --config "$config" check-config || die "--config $config cannot be used: see above; nothing was changed"
if [[ -n $serf_key ]]; then
    is_file --serf-key "$serf_key"
    [[ $(base64 -d <"$serf_key" 2>/dev/null | wc -c) =~ ^(16|24|32)$ ]] || die "--serf-key $serf_key holds no key: write one with 'serf keygen'"
elif [[ -z $plain_gossip ]]; then
    die "--serf-key FILE is missing: 'serf keygen >serf-key' makes one; --plain-gossip goes without"
fi
is_name --name "$name"
for address in "${join[@]}"; do is_name --join "$address"; done
if [[ $kind == box ]]; then
    [[ -n $environment && -n $roles && -n $compose ]] || usage "a box needs --environment, --roles and --compose"
    is_place --environment "$environment"
    [[ $zone =~ ^([A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$ ]] || die "--zone $zone is no zone: use A-Z, a-z, 0-9, '_', '.' and '-', at most 63"
    [[ $roles != *[[:space:]]* ]] || die "--roles $roles has spaces: separate roles with commas"
    for role in ${roles//,/ }; do
        is_place --roles "$role"
        is_file "the compose file" "$compose/$role.yml"
    done
fi

changed=()

# run COMMAND...: as root. Not where only files are wanted.
run() {
    [[ -z $prefix ]] || return 0
    if [[ -n $dry_run ]]; then say "would run: $*"; else as_root "$@"; fi
}

# put SOURCE DESTINATION [MODE [GROUP]]: installs a file (`-`: stdin, not from a pipe: what changed must be remembered)
# if it differs; never shows what is in it.
put() {
    local source=$1 destination=$prefix$2 mode=${3:-644} group=${4:-root} scratch=''
    getent group "$group" >/dev/null || group=root
    if [[ $source == - ]]; then
        scratch=$(mktemp)
        cat >"$scratch"
        source=$scratch
    fi
    if ! as_root cmp -s "$source" "$destination" || [[ $(as_root stat -c %a "$destination") != "$mode" ]]; then
        changed+=("$2")
        if [[ -n $dry_run ]]; then
            say "would write $destination ($mode)"
        else
            say "writes $destination ($mode)"
            as_root install -D -m "$mode" -g "$group" "$source" "$destination"
        fi
    fi
    rm -f "$scratch"
}

# has_changed PATTERN: a file that matches was written.
has_changed() {
    local file
    # shellcheck disable=SC2053 # a pattern is meant
    for file in "${changed[@]}"; do [[ $file == $1 ]] && return; done
    return 1
}

# in_place FILE: the file, which names what the package has; without a package that is below /usr/local.
in_place() {
    if [[ -n $packaged ]]; then cat "$1"; else sed 's#/usr/\(bin\|lib\)/deployctl#/usr/local/\1/deployctl#' "$1"; fi
}

json_list() { printf '"%s"\n' "$@" | paste -sd ,; }

install_packages() {
    local packages=()
    has serf || packages+=(serf)
    if [[ $kind == box ]]; then
        has dockerd || packages+=(docker.io)
        has docker-compose || docker compose version >/dev/null 2>&1 || packages+=(docker-compose)
        if grep -q '"elb\(v2\)\?"' "$config"; then has aws || packages+=(awscli); fi
    elif [[ -n $redis_password ]]; then
        has redis-server || packages+=(redis-server)
    fi
    [[ ${#packages[@]} -gt 0 ]] || return 0
    run apt-get -qq update
    run env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
}

put_serf() {
    put "$root/serf/fleet.json" /etc/serf/fleet.json
    put "$root/scripts/systemd/serf-state.conf" /etc/systemd/system/serf.service.d/deployctl.conf
    local tags='{}' others='[]'
    if [[ $kind == box ]]; then
        put - /etc/serf/box.json < <(in_place "$root/serf/box.json")
        tags="{\"images\": \"$roles\", \"environment\": \"$environment\"${zone:+, \"zone\": \"$zone\"}}"
    fi
    [[ ${#join[@]} -eq 0 ]] || others="[$(json_list "${join[@]}")]"
    put - /etc/serf/local.json < <(printf '{\n  "node_name": "%s",\n  "retry_join": %s,\n  "tags": %s\n}\n' "$name" "$others" "$tags")
    # 600 also keeps the key out of `serf agent`'s arguments, where everyone could read it.
    if [[ -n $serf_key ]]; then
        put - /etc/serf/key.json 600 < <(printf '{"encrypt_key": "%s"}\n' "$(cat "$serf_key")")
    fi
}

units=(deployctl@.service deployctl-sync.service deployctl-sync.timer deployctl-terminate.service deployctl-service.service)

is_installed() {
    # shellcheck disable=SC2016 # dpkg-query fills it in
    case $package in
        *.deb)
            [[ $(dpkg-query --show --showformat '${db:Status-Status} ${Version}' deployctl 2>/dev/null) == \
                "installed $(dpkg-deb --field "$package" Version)" ]]
            ;;
        *.rpm) [[ $(rpm --query deployctl) == "$(rpm --query --package "$package")" ]] ;;
    esac
}

put_package() {
    if [[ -n $package ]] && ! is_installed; then
        changed+=("$package")
        case $package in
            *.deb) run dpkg --install "$package" ;;
            *.rpm) run rpm --upgrade "$package" ;;
        esac
    fi
    # What an earlier run without a package wrote would hide the package's.
    local file
    for file in /usr/local/bin/deployctl /usr/local/lib/deployctl/autoscaling.sh "${units[@]/#//etc/systemd/system/}"; do
        [[ -e $prefix$file ]] || continue
        changed+=("$file")
        if [[ -n $dry_run ]]; then say "would remove $prefix$file"; else say "removes $prefix$file" && as_root rm "$prefix$file"; fi
    done
}

put_program() {
    local file
    put "$binary" /usr/local/bin/deployctl 755
    [[ $kind == service ]] || put "$root/scripts/autoscaling.sh" /usr/local/lib/deployctl/autoscaling.sh 755
    for file in "${units[@]}"; do
        # The service's host has the service's, a box the others.
        if [[ $file == *-service.service ]]; then [[ $kind == service ]]; else [[ $kind == box ]]; fi || continue
        put - "/etc/systemd/system/$file" < <(in_place "$root/scripts/systemd/$file")
    done
}

put_deployctl() {
    local group=root mode=600 file
    # The service does not run as root.
    [[ $kind == box ]] || { group=deployctl && mode=640; }
    if [[ -n $packaged ]]; then put_package; else put_program; fi
    put "$config" /etc/deployctl/config.json
    for file in "${secrets[@]}"; do put "$file" "/etc/deployctl/$(basename "$file")" "$mode" "$group"; done
    [[ $kind == box ]] || return 0
    for role in ${roles//,/ }; do put "$compose/$role.yml" "/etc/deployctl/compose/$role.yml"; done
}

put_redis() {
    put - /etc/redis/deployctl.conf 640 redis \
        < <(cat "$root/scripts/redis.conf" && printf 'requirepass %s\n' "$(cat "$redis_password")")
    if ! as_root grep -qs '^include /etc/redis/deployctl.conf' "$prefix/etc/redis/redis.conf"; then
        # shellcheck disable=SC2016 # sh expands it
        run sh -c 'printf "\ninclude /etc/redis/deployctl.conf\n" >>/etc/redis/redis.conf'
    fi
}

start() {
    if has_changed '/etc/systemd/*'; then run systemctl daemon-reload; fi
    if [[ $kind == box ]]; then
        run systemctl enable --quiet --now docker serf
    else
        if [[ -n $redis_password ]]; then
            run systemctl enable --quiet --now redis-server
            if has_changed '/etc/redis/*'; then run systemctl restart redis-server; fi
        fi
        run systemctl enable --quiet --now serf
    fi
    # A worker lives on while its agent restarts.
    if has_changed '/etc/serf/*'; then run systemctl restart serf; fi
    [[ -z $prefix && -z $dry_run ]] || return 0
    wait_for 60 "the Serf agent, with the name $name" agent_has_its_name || die "see journalctl -u serf"
}

# The service and the timer come last: they need the agent with its tags, and Redis with its settings.
start_deployctl() {
    if [[ $kind == box ]]; then
        run systemctl enable --quiet --now deployctl-sync.timer
        return
    fi
    run systemctl enable --quiet --now deployctl-service
    if has_changed '/etc/deployctl/*' || has_changed '/usr/local/bin/*'; then run systemctl restart deployctl-service; fi
    [[ -z $prefix && -z $dry_run ]] || return 0
    wait_for 30 "the deployment service" service_listens || die "it does not answer: see journalctl -u deployctl-service"
}

agent_has_its_name() { serf info | grep -qx "[[:space:]]*name = $name"; }

service_listens() {
    local address
    address=$(sed -n 's/.*"listen": *"\([^"]*\)".*/\1/p' "$config")
    address=${address:-127.0.0.1:8700}
    ! port_is_free "${address##*:}"
}

install_packages
if [[ $kind == service ]] && ! getent passwd deployctl >/dev/null; then
    run useradd --system --no-create-home --shell /usr/sbin/nologin deployctl
fi
put_serf
put_deployctl
[[ -z $redis_password ]] || put_redis
start
start_deployctl
[[ ${#changed[@]} -gt 0 ]] || say "every file is as it should be"
if [[ $kind == box && -z $prefix && -z $dry_run ]]; then as_root deployctl doctor; fi
