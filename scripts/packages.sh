#!/usr/bin/env bash
# Makes what people install: a static binary, a Debian package, an RPM package, an SBOM, and their checksums, into
# target/packages. `make packages`.
#
#   scripts/packages.sh               makes them (MANUAL: the program that scripts/manual.rs makes, where it is built)
#   scripts/packages.sh check         makes them again, from a clone in another folder, and compares every byte
#   scripts/packages.sh lay DIR BINARY MANUAL
#                                     lays the files of a package out in DIR/programs (mode 755) and DIR/files (644)
#
# The same commit gives the same bytes wherever it is built, with the same Rust.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
target=x86_64-unknown-linux-musl
out=$root/target/packages

# lay DIR BINARY MANUAL: the one list of what a package has, and where. Cargo.toml packs both folders.
lay() {
    local dir=$1 binary=$2 manual=$3 scratch
    scratch=$(mktemp -d)
    rm -rf "$dir/programs" "$dir/files"
    program() { install -D -m 755 "$1" "$dir/programs/$2"; }
    file() { install -D -m 644 "$1" "$dir/files/$2"; }
    files() { # FOLDER FILE...
        local folder=$1 path
        shift
        for path; do file "$path" "$folder/$(basename "$path")"; done
    }
    program "$binary" usr/bin/deployctl
    program scripts/autoscaling.sh usr/lib/deployctl/autoscaling.sh
    files usr/lib/systemd/system scripts/systemd/deployctl*
    file scripts/packages/sysusers.conf usr/lib/sysusers.d/deployctl.conf
    file scripts/packages/tmpfiles.conf usr/lib/tmpfiles.d/deployctl.conf
    "$manual" "$scratch"
    files usr/share/man/man1 "$scratch"/man/*
    file "$scratch/completions/deployctl.bash" usr/share/bash-completion/completions/deployctl
    # Debian's zsh looks in the first, others' in the second.
    file "$scratch/completions/_deployctl" usr/share/zsh/vendor-completions/_deployctl
    file "$scratch/completions/_deployctl" usr/share/zsh/site-functions/_deployctl
    file "$scratch/completions/deployctl.fish" usr/share/fish/vendor_completions.d/deployctl.fish
    # provision.sh and what it reads, laid out as in the sources; the rest are examples.
    program scripts/provision.sh usr/share/deployctl/scripts/provision.sh
    files usr/share/deployctl/scripts scripts/lib.sh scripts/redis.conf scripts/iam-policy.json
    file scripts/systemd/serf-state.conf usr/share/deployctl/scripts/systemd/serf-state.conf
    files usr/share/deployctl/scripts/config scripts/config/*
    files usr/share/deployctl/serf serf/*
    files usr/share/deployctl/compose compose/*
    files usr/share/doc/deployctl README.md CHANGELOG.md LICENSE
    files usr/share/doc/deployctl/docs docs/*.md
    rm -rf "$scratch"
}

# The program, without a path of this machine in it: neither the sources' folder nor cargo's.
build() {
    local cargo=${CARGO_HOME:-$HOME/.cargo}
    export CC_x86_64_unknown_linux_musl=musl-gcc
    export CFLAGS_x86_64_unknown_linux_musl="-ffile-prefix-map=$root=/deployctl -ffile-prefix-map=$cargo=/cargo"
    export RUSTFLAGS="--remap-path-prefix=$root=/deployctl --remap-path-prefix=$cargo=/cargo"
    cargo build --locked --release --target "$target"
}

# sbom VERSION: CycloneDX, of the crates that are in the program, with the hashes that Cargo.lock has.
sbom() {
    cargo tree --locked --target "$target" --edges normal --prefix none --no-dedupe --format '{p} {l}' |
        awk '!seen[$0]++ && $1 != "deployctl" { sub(/^v/, "", $2); name = $1; version = $2; $1 = $2 = ""; print name "\t" version "\t" $0 }' |
        sed 's/(proc-macro)//; s/\t */\t/g' | sort |
        jq --raw-input --slurp --arg version "$1" --rawfile lock Cargo.lock '
            ($lock | [scan("name = \"([^\"]+)\"\nversion = \"([^\"]+)\"\nsource = [^\n]+\nchecksum = \"([0-9a-f]+)\"")
                | {key: "\(.[0]) \(.[1])", value: .[2]}] | from_entries) as $hashes |
            {
                bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
                metadata: {component: {type: "application", name: "deployctl", version: $version, "bom-ref": "deployctl"}},
                components: [split("\n")[] | select(. != "") | split("\t") | {
                    type: "library", name: .[0], version: .[1],
                    "bom-ref": "pkg:cargo/\(.[0])@\(.[1])", purl: "pkg:cargo/\(.[0])@\(.[1])",
                    licenses: [{expression: (.[2] | gsub("/"; " OR "))}],
                    hashes: [{alg: "SHA-256", content: $hashes["\(.[0]) \(.[1])"]}]
                }]
            }'
}

make_packages() {
    local version revision base manual=${CARGO_TARGET_DIR:-$root/target}/debug/examples/manual
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    # How many commits: of two packages of one version the later one is the newer.
    revision=$(git rev-list --count HEAD)
    [[ $(git rev-parse --is-shallow-repository) == false ]] || die "this clone has no history: git fetch --unshallow"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    step "Building deployctl $version-$revision for $target"
    rustup target list --installed | grep -qx "$target" || rustup target add "$target"
    scripts/install-tools.sh packages
    rm -rf "$out" && mkdir -p "$out"
    # It runs here and is in no package: as the tests have it.
    if [[ -n ${MANUAL:-} ]]; then manual=$MANUAL; else cargo build --locked --example manual; fi
    export CARGO_TARGET_DIR=$root/target/static
    build
    base=$CARGO_TARGET_DIR/$target/release
    lay "$out/laid" "$base/deployctl" "$manual"

    step "Packing"
    "$tools/bin/cargo-deb" --no-build --no-strip --target "$target" --deb-revision "$revision" --output "$out"
    "$tools/bin/cargo-generate-rpm" --target "$target" --set-metadata "release = \"$revision\"" --output "$out"
    cp "$base/deployctl" "$out/deployctl-$version-$revision.x86_64"
    sbom "$version-$revision" >"$out/deployctl-$version-$revision.cdx.json"
    rm -rf "$out/laid"
    (cd "$out" && sha256sum deployctl* >SHA256SUMS && cat SHA256SUMS)
}

check() {
    local clone
    [[ -f $out/SHA256SUMS ]] || die "there are no packages to compare with: run scripts/packages.sh first"
    [[ -z $(git status --porcelain) ]] || die "a clone has commits only: commit your changes first"
    clone=$(mktemp -d /var/tmp/deployctl-again.XXXXXX)/a/longer/path
    git clone --quiet "$root" "$clone"
    DEPLOYCTL_TOOLS=$tools MANUAL=${CARGO_TARGET_DIR:-$root/target}/debug/examples/manual "$clone/scripts/packages.sh"
    step "The same bytes?"
    diff "$out/SHA256SUMS" "$clone/target/packages/SHA256SUMS" || die "they differ: $clone has the second build"
    rm -rf "${clone%/a/longer/path}"
    say "yes, each"
}

case ${1:-} in
    '') make_packages ;;
    check) check ;;
    lay) lay "$2" "$3" "$4" ;;
    *) die "no such command: $1 (there are check and lay)" ;;
esac
