#!/usr/bin/env bash
# A box of an auto-scaling group answers the group's lifecycle hooks:
#
#   autoscaling.sh launch GROUP HOOK       from user data: brings the box to what it should run, then lets it in;
#                                          a box that does not get there is replaced
#   autoscaling.sh terminate GROUP HOOK    as a service: when the group wants the box gone, takes it out of service
#                                          under a lock, leaves the fleet, then lets it go
set -euo pipefail

# How long a box that goes may wait for its lock; the hook's own timeout (an hour by default) must be longer.
patience=${PATIENCE:-30m}
metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
metadata=${metadata%/}

ask_metadata() {
    local token
    token=$(curl -fsS -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/latest/api/token") || return
    # By stdin: everybody on the machine can read the arguments of a program.
    curl -fsS -m 2 -H @- "$metadata/latest/meta-data/$1" <<<"X-aws-ec2-metadata-token: $token"
}

answer() { # RESULT
    aws --region "$(ask_metadata placement/region)" autoscaling complete-lifecycle-action \
        --auto-scaling-group-name "$group" --lifecycle-hook-name "$hook" \
        --instance-id "$(ask_metadata instance-id)" --lifecycle-action-result "$1"
}

launch() {
    # Serf, Redis and Docker may still be on their way up.
    local try
    for ((try = 1; try <= 10; try++)); do
        if deployctl sync; then
            answer CONTINUE
            return
        fi
        sleep 15
    done
    answer ABANDON
    return 1
}

terminate() {
    until [[ $(ask_metadata autoscaling/target-lifecycle-state) == Terminated ]]; do sleep 5; done
    local info role roles
    # An agent that does not answer yet does not mean that this box has no roles.
    until info=$(serf info -format=json); do sleep 5; done
    roles=$(sed -n 's/.*"images": *"\([^"]*\)".*/\1/p' <<<"$info")
    for role in ${roles//,/ }; do
        # `out` gives up long before `patience` when AWS does not answer. The hook's own timeout decides about a box that
        # does not get out: answered, the group would end a box that requests still reach.
        # shellcheck disable=SC2016 # the inner shell expands it
        timeout "$patience" bash -c 'until deployctl out --role "$1" --reason "$2"; do sleep 10; done' \
            - "$role" "the auto-scaling group terminates this box" || return 1
    done
    # Debian's unit starts an agent that left again, and the box would count in the next deploy.
    systemctl stop serf || serf leave || true
    until answer CONTINUE; do sleep 5; done
}

[[ $# -eq 3 && $1 =~ ^(launch|terminate)$ ]] || {
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
group=$2 hook=$3
"$1"
