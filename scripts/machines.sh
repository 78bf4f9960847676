#!/usr/bin/env bash
# `docs/first-fleet.md`, step by step, on machines with systemd, made on this one, and what happens to them. `make machines`.
# The commands and configurations are read from that document. Each check prints ✓ or ✗ and what was seen; MACHINES_KEEP=1 leaves
# the logs. Needs root, namespaces and cgroup 2, and no network once scripts/install-tools.sh machines has run.
# shellcheck disable=SC2317 # it takes functions that others call for unreachable
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=machines/lib.sh
source "$(dirname "$0")/machines/lib.sh"
# shellcheck source-path=SCRIPTDIR source=machines/package.sh
source "$(dirname "$0")/machines/package.sh"
cd "$root"

if [[ ${1:-} != inside ]]; then
    scripts/install-tools.sh machines
    cargo build --locked
    cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    [[ -n $cgroups ]] || die "no cgroup 2 is mounted here: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)"
    dir=$(mktemp -d /var/tmp/deployctl-machines.XXXXXX)
    cgroups=$cgroups/$(basename "$dir")
    # Processes, mounts and networks end with the namespaces; these two remain.
    finish() {
        as_root find "$cgroups" -depth -type d -exec rmdir {} + 2>/dev/null || true
        if [[ -n ${MACHINES_KEEP:-} ]]; then say "logs are in $dir"; else as_root rm -rf "$dir"; fi
    }
    trap finish EXIT
    as_root mkdir "$cgroups"
    as_root env -i "PATH=$PATH:/usr/sbin:/sbin" HOME=/root "DEPLOYCTL_TOOLS=$tools" "dir=$dir" "cgroups=$cgroups" \
        timeout --foreground --kill-after 5 600 \
        unshare --net --mount --pid --fork --kill-child --mount-proc scripts/machines.sh inside
    exit
fi
trap 'exit 130' INT TERM

wrong=0
# check WHAT COMMAND...: a line, with the last thing that COMMAND said; all of it when it fails.
check() {
    local what=$1 seen
    shift
    if seen=$("$@" 2>&1); then
        printf '%4d s  ✓ %s: %s\n' "$SECONDS" "$what" "$(tail -n 1 <<<"$seen" | cut -c 1-160)"
    else
        printf '%4d s  ✗ %s (%s)\n%s\n' "$SECONDS" "$what" "$*" "$(tail -n 40 <<<"$seen" | sed 's/^/          /')"
        wrong=$((wrong + 1))
    fi
}
# within SECONDS COMMAND...: COMMAND succeeds before that; prints what it said last.
within() {
    local seconds=$1 deadline=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        ((SECONDS < deadline)) || { echo "not within $seconds s: $said" && return 1; }
        sleep 0.3
    done
    echo "$said"
}

document=$root/docs/first-fleet.md
# block LANGUAGE NUMBER
block() {
    awk -v open="\`\`\`$1" -v wanted="$2" \
        '$0 == open { n++; if (n == wanted) { on = 1; next } } /^```$/ { on = 0 } on' "$document"
}
# command START: the command that begins so, with its continued lines.
command_of() {
    awk -v start="\$ $1" 'index($0, start) == 1 { on = 1 } on { sub(/^\$ /, ""); print; if (!/\\$/) exit }' "$document" | grep .
}

# laptop COMMAND: by a shell in the folder where the document's commands run, with CI's token.
laptop() {
    (cd "$dir/share/deployctl" && DEPLOYCTL_SERVICE_URL=http://deploys.internal:8700 DEPLOYCTL_TOKEN="$(cat "token-${who:-ci}")" \
        PATH=$PWD/target/release:$PATH bash -euc "$1")
}
# as_documented NAME COMMAND: in the same folder on a machine.
as_documented() { on "$1" bash -euc "cd /lab/deployctl && $2"; }

aws() {
    AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x AWS_DEFAULT_REGION=eu-west-1 AWS_ENDPOINT_URL=https://10.77.0.1 \
        AWS_CA_BUNDLE=$dir/ca/ca.crt "$tools/venv/bin/aws" --output text "$@"
}
target_group() {
    local vpc subnets balancer
    vpc=$(aws ec2 describe-vpcs --query 'Vpcs[0].VpcId')
    read -ra subnets < <(aws ec2 describe-subnets --query 'Subnets[:2].SubnetId')
    group=$(aws elbv2 create-target-group --name app --protocol HTTP --port 8080 --vpc-id "$vpc" --query 'TargetGroups[0].TargetGroupArn')
    balancer=$(aws elbv2 create-load-balancer --name app --subnets "${subnets[@]}" --query 'LoadBalancers[0].LoadBalancerArn')
    aws elbv2 create-listener --load-balancer-arn "$balancer" --protocol HTTP --port 80 \
        --default-actions "Type=forward,TargetGroupArn=$group" >/dev/null
}
# in_service: the boxes that the load balancer sends requests to. curl, since the AWS CLI takes half a second.
in_service() {
    local answer id
    answer=$(curl -fsS -m 5 --cacert "$dir/ca/ca.crt" https://10.77.0.1/ -d Action=DescribeTargetHealth -d Version=2015-12-01 \
        -H "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/elasticloadbalancing/aws4_request, SignedHeaders=host, Signature=0" \
        --data-urlencode "TargetGroupArn=$group") || return
    for id in $(tr -d '\n' <<<"$answer" | sed 's/<TargetHealth>/\n&/g; s/<member>/\n&/g' | grep -B1 '<State>healthy<' | grep -o 'i-[0-9a-f]*'); do
        (cd "$dir/cloud" && grep -lx "$id" 10.* | sed 's/10.77.0.1/box-/')
    done
}

# serving BOX...: these are in service, and no others.
serving() { [[ $(in_service | sort | tee /dev/stderr) == "$(printf '%s\n' "$@")" ]]; }

# What CI builds, on a box's engine, since the machines have no other. v3 is the bad one.
push_image() {
    mkdir -p "$dir/share/image"
    cp "$(command -v busybox)" "$dir/share/image/busybox"
    cat >"$dir/share/image/start" <<'SH'
#!/bin/sh
trap 'exit 0' TERM INT
echo "app $TAG starts"
[ "$TAG" != v3 ] || { echo "fatal: cannot open the database"; exit 3; }
mkdir -p /www && echo "$TAG" >/www/health
httpd -f -p 8080 -h /www &
wait $!
SH
    chmod 755 "$dir/share/image/start"
    cat >"$dir/share/image/Dockerfile" <<DOCKERFILE
FROM scratch
COPY busybox /bin/busybox
COPY start /bin/start
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV TAG=$1
CMD ["/bin/start"]
DOCKERFILE
    on box-1 docker build -q -t "registry.internal/app:$1" /lab/image
    on box-1 docker push -q "registry.internal/app:$1"
    on box-1 docker rmi --no-prune "registry.internal/app:$1"
}
serves() { # BOX TAG
    local said
    said=$(curl -fsS -m 2 "http://$(cat "$dir/machines/$1/ip"):8080/health") && echo "$1 answers $said" && [[ $said == "$2" ]]
}
registry_login() { on "$1" sh -c 'echo secret | docker login --username ci --password-stdin registry.internal'; }

configurations() {
    local name
    for name in ci staging-boxes production-boxes ops; do
        grep "^$name: " "$dir/hashes"
    done | awk '{ sub(":", "", $1); printf "/\"name\": \"%s\"/s/…/%s/\n", $1, $2 }' >"$dir/hashes.sed"
    block json 1 | sed -f "$dir/hashes.sed" >service.json
    if grep '…' service.json; then return 1; fi
    block json 2 | sed "s|arn:aws:[^\"]*|$group|" >box.json
    echo "service.json, box.json"
}

box_new() { # NUMBER LAYER
    machine_new "box-$1" "10.77.0.1$1" "$2"
    aws ec2 run-instances --image-id ami-12c6146b --query 'Instances[0].InstanceId' >"$dir/cloud/10.77.0.1$1"
    machine_start "box-$1"
}

modes() { # NAME: of what provisioning and deploying wrote; nothing secret is for everybody.
    # shellcheck disable=SC2016 # the inner shell expands it
    on "$1" bash -euc '
        cd /; find etc/deployctl etc/serf var/lib/deployctl var/lib/serf -printf "%m %u:%g %p\n" 2>/dev/null | sort -k3
        if find etc/deployctl/token etc/deployctl/redis-url etc/serf/key.json var/lib/deployctl var/lib/serf -maxdepth 0 \
            -perm /o=rwx 2>/dev/null | grep .; then exit 1; fi
        if find etc/deployctl etc/serf usr/local/bin usr/local/lib/deployctl etc/systemd/system -perm /o=w -not -type l | grep .; then exit 1; fi
        echo "$(find etc/deployctl etc/serf var/lib/deployctl | wc -l) files, no secret is readable for others, nothing writable"'
}

# --- the fleet, step by step
mkdir -p "$dir/share/deployctl/target/release"
cp -r scripts serf compose "$dir/share/deployctl/"
cp "${CARGO_TARGET_DIR:-target}/debug/deployctl" "$dir/share/deployctl/target/release/"
network
certificate
backends
target_group
step "A service's host and a box"
machine_new deploys 10.77.0.10 base
machine_start deploys
box_new 1 packages
cd "$dir/share/deployctl"
block sh 1 >"$dir/secrets.sh"
check "step 1, secrets" bash -euc ". $dir/secrets.sh | tee $dir/hashes"
check "configurations" configurations
check "step 2, the service" as_documented deploys "$(command_of 'scripts/provision.sh service')"
check "step 3, the box's token" laptop "$(grep -o 'cp token-[^)`]*' "$document")"
check "a registry login" registry_login box-1
check "step 3, box-1" as_documented box-1 "$(command_of 'scripts/provision.sh box')"
check "again changes nothing" as_documented box-1 "$(command_of 'scripts/provision.sh box') | grep 'every file is as it should be'"
check "doctor" on box-1 deployctl doctor
check "no unit failed on box-1" on box-1 bash -c '! systemctl --failed --no-legend | grep . && systemctl is-active serf docker deployctl-sync.timer'
check "no unit failed on deploys" on deploys bash -c '! systemctl --failed --no-legend | grep . && systemctl is-active deployctl-service'
check "image v2" push_image v2
check "step 4, publish" laptop "$(command_of 'deployctl publish')"
check "step 4, dry run" laptop "$(command_of 'deployctl start --role app --environment staging --dry-run')"
check "step 4, start" laptop "$(grep -x '\$ deployctl start.*--wait' "$document" | head -n 1 | sed 's/^\$ //')"
check "box-1 has v2" serves box-1 v2
check "box-1 is in service" serving box-1
check "modes on deploys" modes deploys

step "Two more boxes, and a day of deploys"
provision='scripts/provision.sh box'
join_fleet() { # NUMBER: a machine like box-1
    registry_login "box-$1" && as_documented "box-$1" "$(command_of "$provision")" && on "box-$1" deployctl sync
}
for number in 2 3; do
    box_new "$number" packages
    check "box-$number joins" join_fleet "$number"
done
check "three boxes are in service" within 30 serving box-1 box-2 box-3
for tag in v3 v4 v5 v6 v7; do
    check "$tag is pushed and published" eval "push_image $tag && laptop 'deployctl publish -r app -t $tag'"
done

# ask PATH FILTER: of the service's API, by jq.
ask() { curl -fsS -m 5 -H "Authorization: Bearer $(cat token-ops)" "http://deploys.internal:8700/v1/$1" | jq -er "$2"; }
newest() { ask 'deploys?role=app&environment=staging&limit=1' '.deploys[0] | "\(.tag) \(.state)"'; }
ended() { # TAG STATE
    local said
    said=$(newest) && echo "$said" && [[ $said == "$1 $2" ]]
}
out_box() { ask 'locks?role=app&environment=staging' '.out[0].box'; }
# start TAG: sets `box` to the first one that is out.
start() {
    who=ops laptop "deployctl start -r app -e staging -t $1" && box=$(within 60 out_box) && echo "$box is out"
}
all_serve() {
    local box
    for box in box-1 box-2 box-3; do serves "$box" "$1" || return; done
}
no_one_is_out() { [[ $(ask 'locks?role=app&environment=staging' '.out | length') == 0 ]] && echo "no box is out"; }
exits() { # CODE COMMAND...
    local code=0
    "${@:2}" || code=$?
    echo "exit code $code" && ((code == $1))
}

: >"$dir/samples"
while sleep 0.3; do in_service | wc -l >>"$dir/samples"; done &
sampler=$!
check "a good deploy" laptop "deployctl start -r app -e staging -t v4 --wait"
kill "$sampler"
check "never fewer than two in service" eval "sort -n $dir/samples | head -n 1 | grep -x '[23]'"
check "every box has v4" all_serve v4
check "a broken one is told as such" exits 4 laptop "deployctl start -r app -e staging -t v3 --wait"
check "every box has v4 again" all_serve v4
check "in service" within 20 serving box-1 box-2 box-3

start v5 >/dev/null
check "cancel while $box is out" eval 'who=ops laptop "deployctl cancel -r app -e staging --reason test"'
check "it ends cancelled" within 60 ended v5 cancelled
check "no one is left out" within 60 no_one_is_out
check "in service" within 20 serving box-1 box-2 box-3

start v6 >/dev/null
on "$box" systemctl kill --signal KILL deployctl@app
check "the worker of $box killed, the service restarted" on deploys systemctl restart deployctl-service
check "the deploy ends all the same" within 180 ended v6 deployed
check "every box has v6" all_serve v6
check "in service" within 20 serving box-1 box-2 box-3

start v7 >/dev/null
on "$box" systemctl reboot
stays_out() {
    local try
    for ((try = 0; try < 10; try++)); do
        if in_service | grep -x "$box"; then return 1; fi
        sleep 0.5
    done
    echo "$box got no request while it went down"
}
check "$box, rebooted while it is out, stays out" stays_out
check "the deploy ends all the same" within 180 ended v7 deployed
check "every box has v7" all_serve v7

start v6 >/dev/null
check "systemctl stop of the worker of $box" on "$box" systemctl stop deployctl@app
check "no one is left out by it" within 120 no_one_is_out
check "v6 ends" within 120 ended v6 deployed

step "Auto-scaling"
hook_answered() { tail -n 1 "$dir/cloud/hooks" | grep "$1"; }
box_new 4 packages
check "box-4 is provisioned" eval "registry_login box-4 && as_documented box-4 \"\$(command_of '$provision')\""
check "the launch hook" on box-4 /usr/local/lib/deployctl/autoscaling.sh launch app launch
check "is answered CONTINUE" hook_answered LifecycleActionResult=CONTINUE
check "box-4 has v6" serves box-4 v6
check "and is in service" within 20 serving box-1 box-2 box-3 box-4
rm -f "$dir/cloud/hooks"
on box-4 sh -c 'printf "AUTOSCALING_GROUP=app\nTERMINATE_HOOK=terminate\n" >/etc/deployctl/environment'
check "the terminate unit waits" on box-4 sh -c 'systemctl start deployctl-terminate && systemctl is-active deployctl-terminate'
echo Terminated >"$dir/cloud/10.77.0.14.state"
check "the terminate hook is answered" within 60 hook_answered LifecycleActionResult=CONTINUE
check "box-4 is out of service" serving box-1 box-2 box-3
check "its agent has left for good" on box-4 sh -c '! systemctl is-active serf'

package=$(find "$root/target/packages" -maxdepth 1 -name 'deployctl_*.deb' 2>/dev/null)
if [[ -n $package ]]; then
    package_steps "$(command_of "$provision")" "$(command_of 'scripts/provision.sh service')"
else
    say "NO PACKAGE: make packages makes one, and it is tried here"
fi

for number in 1 2 3; do check "modes on box-$number" modes "box-$number"; done

step "$wrong checks failed, after $SECONDS s"
((wrong == 0))
