# The package on machines that run: what `make packages` made goes over what was provisioned by hand, is upgraded in the
# middle of a deploy, and removed. Source after machines.sh's functions; `package` names the .deb.
# shellcheck shell=bash disable=SC2154,SC2034,SC2016 # the sourcing script has the rest; inner shells expand

# next_package: the same once more with a higher version.
next_package() {
    local unpacked
    unpacked=$(mktemp -d)
    dpkg-deb --raw-extract "$package" "$unpacked/deb"
    sed -i 's/^Version: .*/&.next/' "$unpacked/deb/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone --build "$unpacked/deb" "$dir/share/next.deb"
    rm -rf "$unpacked"
}
units_are_packaged() { # NAME UNIT...
    local name=$1 unit
    shift
    for unit; do
        on "$name" systemctl show --property FragmentPath --value "$unit" | grep -x '\(/usr\)\?/lib/systemd/system/.*' || return
    done
    on "$name" sh -c '! ls /usr/local/bin/deployctl /usr/local/lib/deployctl/* /etc/systemd/system/deployctl* 2>/dev/null | grep .'
}
worker_pid() { on "$1" systemctl show --property MainPID --value deployctl@app | grep -vx 0; }
upgrade_in_the_middle() {
    local before
    before=$(within 20 worker_pid "$box") || return
    on "$box" dpkg --install /lab/next.deb || return
    [[ $(worker_pid "$box") == "$before" ]] && echo "process $before goes on"
}
removed() { # NAME: deployctl is gone, and nothing else
    on "$1" sh -euc '
        ! command -v deployctl
        test -e /etc/deployctl/config.json
        test -e /var/lib/deployctl/app.env
        ! systemctl --failed --no-legend | grep .
        ! systemctl is-active deployctl-sync.timer
        docker ps --format "{{.Names}} {{.Status}}"'
}

package_steps() { # provision.sh's command for a box, and for the service's host
    step "The package"
    cp "$package" "$dir/share/package.deb"
    next_package >/dev/null
    local number
    for number in 1 2 3; do
        check "box-$number takes the package" as_documented "box-$number" "$1 --package /lab/package.deb"
        check "its units on box-$number" units_are_packaged "box-$number" deployctl@app deployctl-sync.timer deployctl-sync
    done
    check "again changes nothing" as_documented box-1 "$1 --package /lab/package.deb | grep 'every file is as it should be'"
    check "without the option neither" as_documented box-1 "$1 | grep 'every file is as it should be'"
    check "the service's host takes it" as_documented deploys "$2 --package /lab/package.deb"
    check "its units on deploys" units_are_packaged deploys deployctl-service
    check "the service runs it" on deploys sh -c 'readlink "/proc/$(systemctl show --property MainPID --value deployctl-service)/exe" | grep -x /usr/bin/deployctl'
    check "man page and completions" on box-1 sh -c 'ls /usr/share/man/man1/deployctl-start.1.gz /usr/share/bash-completion/completions/deployctl'
    start v7 >/dev/null
    check "$box is upgraded in the middle" upgrade_in_the_middle
    check "the service is upgraded in the middle" on deploys dpkg --install /lab/next.deb
    check "the deploy ends all the same" within 180 ended v7 deployed
    check "every box has v7" all_serve v7
    check "box-2 loses the package" on box-2 dpkg --remove deployctl
    check "what is left on box-2" removed box-2
    check "box-2 is still in service" serving box-1 box-2 box-3
    check "box-2 takes it again" as_documented box-2 "$1 --package /lab/next.deb"
    check "a deploy with it" laptop "deployctl start -r app -e staging -t v4 --wait"
    check "box-2 has v4" serves box-2 v4
}
