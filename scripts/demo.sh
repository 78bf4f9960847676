#!/usr/bin/env bash
# A whole fleet on this machine, and five releases on their way through it. `make demo`.
#
#   scripts/demo.sh                        the demo; KEEP=1 leaves the fleet up
#   scripts/demo.sh on DIR BOX COMMAND...  runs a command as a box of a fleet that was kept, or as `laptop`
#   scripts/demo.sh stop DIR               ends a fleet that was kept
# shellcheck disable=SC2317 # it takes functions that others call for unreachable
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=docker.sh
source "$(dirname "$0")/docker.sh"
# shellcheck source-path=SCRIPTDIR source=demo-fleet.sh
source "$(dirname "$0")/demo-fleet.sh"
PATH=$tools/venv/bin:$PATH:/usr/sbin:/sbin
staging=(box-1 box-2 box-3 box-4 box-5 box-6) production=(box-7 box-8 box-9)

# What this shell has set for a real fleet is not for this one.
for name in $(compgen -e); do
    case $name in
        DEPLOYCTL_TOOLS) ;;
        AWS_* | DEPLOYCTL_* | DEPLOY_* | COMPOSE_*) unset "$name" ;;
    esac
done

case ${1:-} in
    on)
        [[ $# -ge 4 && -f $2/$3/environment ]] || die "on DIR BOX COMMAND...: DIR is what the demo printed, BOX box-1 to box-9 or laptop"
        dir=$2 who=$3
        shift 3
        mapfile -t variables <"$dir/$who/environment"
        exec env "$(mark)" "${variables[@]}" "PATH=$(cat "$dir/bin"):$PATH" "$@"
        ;;
    stop)
        dir=${2:?stop DIR}
        [[ -f $dir/pids ]] || die "no demo runs in $dir"
        stop_fleet
        exit
        ;;
    '') ;;
    *) die "no such command: $1 (there are on and stop)" ;;
esac

# laptop COMMAND...: as a person with nothing but the service's address.
laptop() { env "DEPLOYCTL_SERVICE_URL=http://$service" "$deployctl" "$@"; }
# shown COMMAND...: the same, with the command line.
shown() {
    printf '%s$ deployctl %s%s\n' "$bold" "$*" "$plain"
    laptop "$@"
}
# ask PATH FILTER: of the service's API, by jq.
ask() { curl -fsS "http://$service/v1/$1" | jq -r "$2"; }

# expect WHAT COMMAND...: the demo fails in the end if COMMAND does; it goes on, for there is more to see.
wrong=0
expect() {
    local what=$1
    shift
    if "$@"; then
        say "  as it should be: $what"
    else
        say "  NOT as it should be: $what"
        wrong=1
    fi
}

# serve TAG BOX...: every box answers with this tag.
serve() {
    local tag=$1 box
    shift
    for box; do [[ $(curl -fsS -m 5 "$(cat "$dir/$box/site")") == "$tag" ]] || return; done
}

sampler='' watcher='' customers=''
# end_job PID: a job of this shell's own, if it still runs: its number may be another's by now.
end_job() {
    [[ -n $1 ]] && jobs -p | grep -qx "$1" && kill "$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
}

# watch_capacity: looks at staging's target group all the time; look_back says how few it saw.
watch_capacity() {
    : >"$dir/samples"
    while sleep 0.2; do registered staging >>"$dir/samples" || true; done &
    sampler=$!
}
look_back() {
    end_job "$sampler"
    fewest=$(sort -n "$dir/samples" | head -n 1)
    say "  looked at the target group $(wc -l <"$dir/samples") times: at most $((6 - fewest)) of 6 boxes were out at once"
    expect "never more than a third out" test "$fewest" -ge 4
}

# careful: what the service is told before v5, as keys of the role's policy.
careful() {
    cat <<JSON
"first": {"boxes": 1, "for": "1m"},
"gates": [{"when": "roll", "failures": 2, "compare": {
  "url": "http://$prometheus", "every": "2s", "max_ratio": 1.5,
  "query": "sum(rate(orders_total{code='500',box=~'\$boxes'}[15s])) / sum(rate(orders_total{box=~'\$boxes'}[15s]))",
  "baseline": "sum(rate(orders_total{code='500',box=~'\$others'}[15s])) / sum(rate(orders_total{box=~'\$others'}[15s]))",
  "samples": "sum(increase(orders_total{box=~'\$boxes'}[15s]))", "min_samples": 15
}}]
JSON
}

# send_orders BOX...: two orders a second to each box, until the job ends.
send_orders() {
    local box sites=()
    for box; do sites+=("$(cat "$dir/$box/site")/cgi-bin/order"); done
    while sleep 0.5; do curl -s -m 2 --parallel "${sites[@]}" >/dev/null 2>&1 || true; done
}

# who_waited TAG: from the boxes' own logs.
who_waited() {
    local box
    for box in "${staging[@]}"; do
        awk -v box="$box" -v tag="$1" '
            / joined / { mine = index($0, " of " tag ":") > 0; n = 0 }
            mine && sub(/.* waits for [0-9]+ of [0-9]+ locks: /, "") { waits[++n] = $0 }
            END { if (n) { printf "  %s waited for %s", box, waits[1]
                           for (i = 2; i <= n; i++) printf "; then for %s", waits[i]
                           print "" } }' "$dir/$box/log/app.log"
    done
}

# boxes_of TAG PHASE: of its newest deploy in staging.
boxes_of() {
    local id
    id=$(ask "deploys?role=app&environment=staging&limit=5" "[.deploys[] | select(.tag == \"$1\")][0].id")
    ask "deploys/$id" "[.boxes[] | select(.phase == \"$2\") | .box] | join(\" \")"
}

# deployed_in ENVIRONMENT TAG: complete there.
deployed_in() { [[ $(ask "deploys?role=app&environment=$1&limit=1" '.deploys[0] | "\(.tag) \(.state)"') == "$2 deployed" ]]; }

release() { # TAG
    push_image "$1"
    shown publish --role app --tag "$1"
}

finish() {
    local code=$?
    trap - EXIT
    trap '' INT TERM
    end_job "$sampler"
    end_job "$watcher"
    end_job "$customers"
    if [[ ${KEEP:-} == 1 && $code -ne 130 ]]; then
        say_what_to_try
        exit "$code"
    fi
    step "Stopping everything that was started"
    stop_fleet
    exit "$code"
}

say_what_to_try() {
    local on="scripts/demo.sh on $dir"
    step "The fleet stays up (KEEP=1). What to try"
    cat <<TEXT
  $on laptop deployctl status --history
  $on laptop deployctl start -r app -e staging -t v2 --wait
  $on laptop deployctl rollback -r app -e production
  $on laptop deployctl freeze -e production --reason "dinner"
  $on box-1 deployctl doctor
  $on box-1 deployctl out -r app --reason "looking at the disk"
  $on box-1 deployctl in -r app
  $on box-1 bash                 a shell that is box-1
  scripts/demo.sh stop $dir     ends it
TEXT
}

started=$SECONDS
"$root/scripts/install-tools.sh" demo
step "Building deployctl"
(cd "$root" && cargo build --locked --quiet)
deployctl=${CARGO_TARGET_DIR:-$root/target}/debug/deployctl

dir=$(mktemp -d "${TMPDIR:-/tmp}/deployctl-demo.XXXXXX")
trap finish EXIT
trap 'exit 130' INT TERM
dirname "$deployctl" >"$dir/bin"
step "Starting Redis, a registry, moto (AWS), the deployment service and nine boxes in $dir"
start_docker
[[ -z $docker_pid ]] || echo "$docker_pid" >"$dir/docker_pid"
start_parts
number=10
for box in "${staging[@]}"; do start_box "$box" "127.0.0.$((++number))" staging; done
for box in "${production[@]}"; do start_box "$box" "127.0.0.$((++number))" production; done
all_are_here() { [[ $(serf members -status=alive -rpc-addr="$(cat "$dir/hub/rpc")" | wc -l) -eq 10 ]]; }
wait_for 30 "ten Serf agents that know each other" all_are_here
say "  staging: ${staging[*]}; production: ${production[*]}"

step "v1: the first release"
release v1
shown start --role app --environment staging --wait
expect "six boxes serve v1" serve v1 "${staging[@]}"

step "v2: a good release rolls through staging, a third of the boxes at a time"
release v2
watch_capacity
shown start --role app --environment staging --wait
look_back
who_waited v2
expect "six boxes serve v2" serve v2 "${staging[@]}"

step "v3: a broken release stops itself"
release v3
watch_capacity
code=0
shown start --role app --environment staging --wait || code=$?
look_back
expect "start --wait says so: exit code 4, the release is broken" test "$code" -eq 4
went=$(boxes_of v3 rolled_back)
say "  went out and came back: $went; the others were never touched"
expect "one wave at most" test "$(wc -w <<<"$went")" -le 2
expect "six boxes serve v2" serve v2 "${staging[@]}"
code=0
shown start --role app --environment staging --tag v3 || code=$?
expect "nobody starts it again by accident" test "$code" -ne 0

step "v4: the fix goes through staging and is promoted to production by itself"
wait_for 300 "v2 in production, by itself too" deployed_in production v2
release v4
shown start --role app --environment staging --wait
say "  and now, after a bake time of 5s, without anybody's doing, in production:"
if [[ -t 1 ]]; then
    laptop status --role app --environment production --watch &
    watcher=$!
fi
wait_for 300 "v4 in production" deployed_in production v4
[[ -z $watcher ]] || sleep 1
end_job "$watcher"
expect "three boxes in production serve v4" serve v4 "${production[@]}"

step "v5: a release that starts cleanly and fails every fifth order is found by its first box"
start_prometheus "${staging[@]}"
policy=$(careful)
start_service
say "  the service lets one box go first now, and compares what it serves with what the others do:"
say "$policy"
send_orders "${staging[@]}" &
customers=$!
release v5
watch_capacity
code=0
shown start --role app --environment staging --wait || code=$?
end_job "$customers"
look_back
expect "start --wait says so: exit code 4, the release is broken" test "$code" -eq 4
was=$(boxes_of v5 "done")
say "  served v5: $was"
expect "one box served v5" test "$(wc -w <<<"$was")" -eq 1
wait_for 300 "the way back to v4, by itself" deployed_in staging v4
expect "six boxes serve v4" serve v4 "${staging[@]}"

step "What runs where"
shown status
say ""
say "took $((SECONDS - started)) s in all"
exit "$wrong"
