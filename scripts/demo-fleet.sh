# The parts of the demo's fleet: how each is started, and how all are stopped. Source after lib.sh and docker.sh.
# Everything lives in $dir; the pid of whatever is started stands in $dir/pids, one a line.
# shellcheck shell=bash disable=SC2034,SC2154 # who sources this sets `dir` and `deployctl` (and `environments`, where
# they are others), and uses what is set here

registry='' redis='' moto='' hub='' service='' service_pid='' prometheus='' launched='' policy=''
declare -A group

# Every process of the demo carries this, so that detached workers and what they started can be found.
mark() { printf 'DEPLOYCTL_DEMO=%s' "$dir"; }

# launch NAME COMMAND...: in the background and in a session of its own, so that Ctrl-C reaches this script alone.
launch() {
    local name=$1
    shift
    env "$(mark)" setsid "$@" >>"$dir/$name.log" 2>&1 </dev/null &
    launched=$!
    echo "$launched" >>"$dir/pids"
}

# answers ADDRESS: somebody listens there.
answers() { (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null; }

# up SECONDS NAME ADDRESS: waits, and shows the last words of what does not come up.
up() {
    wait_for "$1" "$2" answers "$3" && return
    tail -n 5 "$dir/$2.log" >&2
    die "$2 did not start: see above"
}

# quietly COMMAND...: what it says is only of interest when it fails.
quietly() { "$@" >"$dir/quiet.log" 2>&1 || { cat "$dir/quiet.log" >&2 && die "this failed: $*"; }; }

aws_() { env "${aws_environment[@]}" aws --region us-east-1 --output text "$@"; }

start_parts() {
    redis=127.0.0.1:$(free_port)
    launch redis redis-server --bind 127.0.0.1 --port "${redis#*:}" --dir "$dir" --save '' \
        --appendonly yes --appendfsync always --maxmemory-policy noeviction
    registry=127.0.0.1:$(free_port)
    printf 'version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "%s"}\n' \
        "$dir/registry" "$registry" >"$dir/registry.yml"
    launch registry docker-registry serve "$dir/registry.yml"
    moto=127.0.0.1:$(free_port)
    launch moto moto_server -H 127.0.0.1 -p "${moto#*:}"
    aws_environment=("AWS_ENDPOINT_URL=http://$moto" AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo)
    hub=127.0.0.1:$(free_port)
    start_agent hub "$hub" '{}'
    up 15 redis "$redis"
    up 15 registry "$registry"
    up 60 moto "$moto"
    local vpc environment
    vpc=$(aws_ ec2 describe-vpcs --query 'Vpcs[0].VpcId')
    for environment in staging production; do
        group[$environment]=$(aws_ elbv2 create-target-group --name "app-$environment" --target-type ip \
            --protocol HTTP --port 80 --vpc-id "$vpc" --query 'TargetGroups[0].TargetGroupArn')
    done
    start_service
}

# start_agent NAME GOSSIP-ADDRESS TAGS [VARIABLE...]: a Serf agent with the fleet's own configuration and what must
# differ on one machine. Handlers, and so the workers, inherit the variables.
start_agent() {
    local name=$1 address=$2 tags=$3 rpc
    shift 3
    rpc=127.0.0.1:$(free_port)
    mkdir -p "$dir/$name"
    cat >"$dir/$name/serf.json" <<JSON
{
  "node_name": "$name", "bind": "$address", "rpc_addr": "$rpc", "snapshot_path": "$dir/$name/snapshot",
  "profile": "local", "retry_join": ["$hub"], "retry_interval": "1s", "tags": $tags,
  "event_handlers": ["user:deploy=$deployctl handle"]
}
JSON
    launch "$name/serf" env "$@" serf agent -config-file="$root/serf/fleet.json" -config-file="$dir/$name/serf.json"
    up 15 "$name/serf" "$rpc"
    echo "$rpc" >"$dir/$name/rpc"
}

# start_service: with the further keys of the role's policy in $policy. A service that runs is stopped first, and keeps its
# address.
start_service() {
    if [[ -n $service_pid ]]; then
        stop_pid "$service_pid"
        sed -i "/^$service_pid\$/d" "$dir/pids"
    fi
    service=${service:-127.0.0.1:$(free_port)}
    cat >"$dir/service.json" <<JSON
{
  "redis_url": "redis://$redis/0", "serf_rpc_addr": "$(cat "$dir/hub/rpc")",
  "service": {
    "listen": "$service",
    "roles": {
      "app": {
        "environments": [${environments:-\"staging\", \"production\"}], "auto_promote": true, "bake": "5s", "auto_rollback": true${policy:+,
        $policy}
      }
    }
  }
}
JSON
    launch service "$deployctl" --config "$dir/service.json" service
    service_pid=$launched
    up 15 service "$service"
    mkdir -p "$dir/laptop"
    printf '%s\n' "DEPLOYCTL_SERVICE_URL=http://$service" >"$dir/laptop/environment"
}

# start_box NAME ADDRESS ENVIRONMENT: what a machine has in a real fleet, but for the Docker engine, which all share.
start_box() {
    local name=$1 address=$2 environment=$3 port
    port=$(free_port)
    mkdir -p "$dir/$name/compose"
    echo "http://$address:$port" >"$dir/$name/site"
    cat >"$dir/$name/compose/app.yml" <<YAML
services:
  app:
    image: $registry/app:\${DEPLOY_TAG:?}
    network_mode: bridge
    restart: unless-stopped
    ports: ["$address:$port:8080"]
YAML
    printf '%s\n' "DEPLOYCTL_CONFIG=$dir/$name/config.json" "${aws_environment[@]}" >"$dir/$name/environment"
    mapfile -t variables <"$dir/$name/environment"
    start_agent "$name" "$address:$(free_port)" "{\"images\": \"app\", \"environment\": \"$environment\"}" "${variables[@]}"
    cat >"$dir/$name/config.json" <<JSON
{
  "redis_url": "redis://$redis/0", "service_url": "http://$service", "serf_rpc_addr": "$(cat "$dir/$name/rpc")",
  "compose_dir": "compose", "state_dir": "state", "log_dir": "log",
  "roles": {
    "app": {
      "project": "$(basename "$dir" | tr 'A-Z.' 'a-z-')-$name",
      "load_balancers": [{"elbv2": {"target_group_arn": "${group[$environment]}", "target_id": "$address", "port": $port}}],
      "health": {"url": "http://$address:$port/", "timeout": "30s", "stable_for": "2s"}
    }
  }
}
JSON
}

# start_prometheus BOX...: it asks each box every second how many orders it took, and how they ended.
start_prometheus() {
    local box site
    prometheus=127.0.0.1:$(free_port)
    {
        printf 'global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: app\n    metrics_path: /cgi-bin/metrics\n    static_configs:\n'
        for box; do
            site=$(cat "$dir/$box/site")
            printf '      - {targets: ["%s"], labels: {box: %s}}\n' "${site#http://}" "$box"
        done
    } >"$dir/prometheus.yml"
    launch prometheus prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/prometheus" \
        --web.listen-address="$prometheus"
    up 60 prometheus "$prometheus"
}

# push_image TAG: what CI would build. v3 does not start; v5 starts, and fails every fifth order.
push_image() {
    local tag=$1 image=$registry/app:$1
    if [[ ! -d $dir/image ]]; then
        mkdir "$dir/image"
        cp "$(command -v busybox)" "$dir/image/busybox"
        cat >"$dir/image/start" <<'SH'
#!/bin/sh
exec 2>&1
trap 'kill $! 2>/dev/null; exit 0' TERM INT
echo "app $TAG starts"
if [ "$TAG" = v3 ]; then
    echo "fatal: cannot open the database: DATABASE_URL is not set"
    exit 3
fi
mkdir -p /www/cgi-bin /orders && echo "$TAG" >/www/index.html
cp /bin/order /bin/metrics /www/cgi-bin/
httpd -f -p 8080 -h /www &
wait $!
SH
        cat >"$dir/image/order" <<'SH'
#!/bin/sh
count() { echo $(($(cat "/orders/$1" 2>/dev/null) + 1)) >"/orders/$1"; }
count all
code=200
if [ "$TAG" = v5 ] && [ $(($(cat /orders/all) % 5)) = 0 ]; then code=500; fi
count "$code"
printf 'Status: %s\r\n\r\n' "$code"
SH
        cat >"$dir/image/metrics" <<'SH'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
for code in 200 500; do
    if [ -f "/orders/$code" ]; then echo "orders_total{code=\"$code\"} $(cat "/orders/$code")"; fi
done
SH
        chmod 755 "$dir/image/"{busybox,start,order,metrics}
    fi
    cat >"$dir/image/Dockerfile" <<DOCKERFILE
FROM scratch
LABEL deployctl-demo=$(basename "$dir")
COPY busybox /bin/busybox
COPY start order metrics /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV TAG=$tag
HEALTHCHECK --interval=1s --timeout=2s CMD wget -q -O /dev/null http://127.0.0.1:8080/
CMD ["/bin/start"]
DOCKERFILE
    DOCKER_BUILDKIT=0 quietly docker build --quiet --tag "$image" "$dir/image"
    quietly docker push --quiet "$image"
    # Boxes have to pull it.
    quietly docker rmi --no-prune "$image"
}

# registered ENVIRONMENT: how many targets its load balancer sends requests to. curl, since the AWS CLI takes half a
# second; moto takes any signature.
registered() {
    local credential=Credential=demo/20260101/us-east-1/elasticloadbalancing/aws4_request answer
    answer=$(curl -fsS -m 5 "http://$moto/" -H "Authorization: AWS4-HMAC-SHA256 $credential, SignedHeaders=host, Signature=0" \
        -d Action=DescribeTargetHealth -d Version=2015-12-01 -d "TargetGroupArn=${group[$1]}") || return
    grep -o '<State>healthy</State>' <<<"$answer" | wc -l
}

# stop_fleet: by pid whatever was started, with its containers and images; then the folder.
stop_fleet() {
    local pids=() pid ids
    [[ ! -f $dir/pids ]] || mapfile -t pids <"$dir/pids"
    for pid in "${pids[@]}"; do signal TERM "$pid"; done
    for pid in "${pids[@]}"; do stop_pid "$pid"; done
    # Workers, and what those started; one that ends may just have started another.
    for _ in 1 2 3 4 5; do
        mapfile -t pids < <(grep -slzx "$(mark)" /proc/[0-9]*/environ | cut -d/ -f3)
        [[ ${#pids[@]} -gt 0 ]] || break
        for pid in "${pids[@]}"; do signal KILL "$pid"; done
        sleep 0.2
    done
    if docker info >/dev/null 2>&1; then
        ids=$(docker ps -aq --filter "name=$(basename "$dir" | tr 'A-Z.' 'a-z-')-")
        # shellcheck disable=SC2086 # ids are words
        [[ -z $ids ]] || docker rm --force --volumes $ids >/dev/null
        ids=$(docker images -q --filter "label=deployctl-demo=$(basename "$dir")" | sort -u)
        # shellcheck disable=SC2086
        [[ -z $ids ]] || docker rmi --force $ids >/dev/null
    fi
    [[ ! -f $dir/docker_pid ]] || docker_pid=$(cat "$dir/docker_pid")
    stop_docker
    rm -rf "$dir"
}
