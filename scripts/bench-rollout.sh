#!/usr/bin/env bash
# One roll-out over six boxes, two at a time, beside Ansible doing the same: same machine, registry, engine, load
# balancer, compose files. `make bench ONLY=rollout`.
#
# Ansible's playbook is the common one: pull, deregister, up, ask for health, pause 2 s, register. It neither drains nor
# waits until the load balancer sends requests again; deployctl does both.
#
# ROUNDS=3 by default; prints each time, the medians and their ratio. Fails where deployctl takes more than LIMIT
# (percent of Ansible's median, default 75).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=docker.sh
source "$(dirname "$0")/docker.sh"
# shellcheck source-path=SCRIPTDIR source=demo-fleet.sh
source "$(dirname "$0")/demo-fleet.sh"
PATH=$tools/venv/bin:$PATH:/usr/sbin:/sbin
rounds=${ROUNDS:-3} limit=${LIMIT:-75}
boxes=(box-1 box-2 box-3 box-4 box-5 box-6)

for name in $(compgen -e); do
    case $name in
        DEPLOYCTL_TOOLS) ;;
        AWS_* | DEPLOYCTL_* | DEPLOY_* | COMPOSE_* | ANSIBLE_*) unset "$name" ;;
    esac
done

# milliseconds COMMAND...: prints how long it took; its output goes to the log.
milliseconds() {
    local began=${EPOCHREALTIME/[.,]/}
    "$@" >>"$dir/rollouts.log" 2>&1 || {
        tail -n 30 "$dir/rollouts.log" >&2
        die "this failed: $*"
    }
    echo $(((${EPOCHREALTIME/[.,]/} - began) / 1000))
}

by_deployctl() {
    DEPLOYCTL_SERVICE_URL=http://$service "$deployctl" start --role app --environment staging --tag "$1" --wait
}

by_ansible() {
    env "${aws_environment[@]}" ANSIBLE_LOCALHOST_WARNING=False ANSIBLE_RETRY_FILES_ENABLED=False \
        "$bench_tools/bin/ansible-playbook" -i "$dir/inventory.ini" -e "tag=$1" "$dir/playbook.yml"
}

serve() {
    local box
    for box in "${boxes[@]}"; do [[ $(curl -fsS -m 5 "$(cat "$dir/$box/site")") == "$1" ]] || return; done
}

write_playbook() {
    local box site address
    echo '[boxes]' >"$dir/inventory.ini"
    for box in "${boxes[@]}"; do
        site=$(cat "$dir/$box/site") address=${site#http://}
        printf '%s ansible_connection=local address=%s port=%s folder=%s\n' \
            "$box" "${address%:*}" "${address#*:}" "$dir/$box/compose" >>"$dir/inventory.ini"
    done
    cat >"$dir/playbook.yml" <<YAML
- hosts: boxes
  serial: 2
  gather_facts: false
  vars:
    ansible_python_interpreter: "$bench_tools/bin/python3"
    elb: aws --region us-east-1 elbv2
    target: --target-group-arn ${group[staging]} --targets Id={{ address }},Port={{ port }}
    project: $(basename "$dir" | tr 'A-Z.' 'a-z-')-{{ inventory_hostname }}
  tasks:
    - name: pull
      command: docker pull --quiet $registry/app:{{ tag }}
    - name: deregister
      command: "{{ elb }} deregister-targets {{ target }}"
    - name: up
      command: docker-compose --file {{ folder }}/app.yml --project-name {{ project }} up --detach
      environment: { DEPLOY_TAG: "{{ tag }}" }
    - name: ask for health
      uri: { url: "http://{{ address }}:{{ port }}/", return_content: true }
      register: answer
      until: answer.status == 200 and tag in answer.content
      retries: 60
      delay: 1
    - name: pause
      wait_for: { timeout: 2 }
    - name: register
      command: "{{ elb }} register-targets {{ target }}"
YAML
}

median() { printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
seconds() { awk -v ms="$1" 'BEGIN { printf "%.1f", ms / 1000 }'; }

finish() {
    local code=$?
    trap - EXIT
    trap '' INT TERM
    stop_fleet
    exit "$code"
}

"$root/scripts/install-tools.sh" demo bench
bench_tools=$tools/ansible
step "Building deployctl"
(cd "$root" && cargo build --locked --release --quiet)
deployctl=${CARGO_TARGET_DIR:-$root/target}/release/deployctl
dir=$(mktemp -d "${TMPDIR:-/tmp}/deployctl-bench.XXXXXX")
trap finish EXIT
trap 'exit 130' INT TERM
step "Starting six boxes in $dir"
start_docker
[[ -z $docker_pid ]] || echo "$docker_pid" >"$dir/docker_pid"
environments='"staging"'
start_parts
number=10
for box in "${boxes[@]}"; do start_box "$box" "127.0.0.$((++number))" staging; done
all_are_here() { [[ $(serf members -status=alive -rpc-addr="$(cat "$dir/hub/rpc")" | wc -l) -eq 7 ]]; }
wait_for 30 "seven Serf agents that know each other" all_are_here
write_playbook
push_image v1
DEPLOYCTL_SERVICE_URL=http://$service "$deployctl" publish --role app --tag v1 >/dev/null
quietly by_deployctl v1

step "Six boxes, two at a time, seconds for one roll-out"
printf '%-8s %10s %10s\n' round deployctl Ansible
ours=() theirs=()
for ((round = 1; round <= rounds; round++)); do
    for who in d a; do push_image "$who$round"; done
    DEPLOYCTL_SERVICE_URL=http://$service "$deployctl" publish --role app --tag "d$round" >/dev/null
    ours+=("$(milliseconds by_deployctl "d$round")")
    serve "d$round" || die "not every box serves d$round after deployctl's roll-out"
    theirs+=("$(milliseconds by_ansible "a$round")")
    serve "a$round" || die "not every box serves a$round after Ansible's roll-out"
    printf '%-8s %10s %10s\n' "$round" "$(seconds "${ours[-1]}")" "$(seconds "${theirs[-1]}")"
done
one=$(median "${ours[@]}") other=$(median "${theirs[@]}")
percent=$(awk -v a="$one" -v b="$other" 'BEGIN { printf "%d", a / b * 100 + 0.5 }')
printf '%-8s %10s %10s   %s %% of the time\n' median "$(seconds "$one")" "$(seconds "$other")" "$percent"
((percent <= limit)) || die "deployctl took $percent % of Ansible's time, and the limit is $limit %"
