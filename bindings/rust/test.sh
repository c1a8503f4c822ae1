#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every test of the Rust crates, against an installed library and against one that they build themselves.
#   test.sh PREFIX SOURCE_ROOT WORK_FOLDER      (CARGO: another cargo than the one on PATH)
set -u
prefix=$(cd "$1" && pwd) && source=$(cd "$2" && pwd) && mkdir -p "$3" && work=$(cd "$3" && pwd) || exit 1

cargo=${CARGO:-cargo}
for tool in "$cargo" pkg-config meson; do
    command -v "$tool" > /dev/null || { echo "SKIP: rust: no $tool here"; exit 77; }
done
PATH=$(dirname "$(command -v "$cargo")"):$PATH  # its own rustc beside it
command -v rustc > /dev/null || { echo "SKIP: rust: no rustc here"; exit 77; }
export PATH CARGO_TERM_COLOR=never

pc=$(find "$prefix" -name negcos.pc | head -n 1)
[ -n "$pc" ] || { echo "no negcos.pc in $prefix"; exit 1; }
# Where the library is found and built: folders of any name will do.
odd="$work/Größe 数"
mkdir -p "$odd" && ln -sfn "$(dirname "$pc")/.." "$odd/lib" || exit 1
installed() {  # a command with the installed library, and no other
    env NEGCOS_SYS_SOURCE=0 PKG_CONFIG_PATH="$odd/lib/pkgconfig" LD_LIBRARY_PATH="$odd/lib" "$@"
}

# A copy, as cargo writes where it works. It looks like the repository to whatever looks for its files.
tree=$work/tree
rm -rf "$tree" && mkdir -p "$tree/bindings" && cp -R "$source/bindings/rust" "$tree/bindings/" || exit 1
rm -rf "$tree/bindings/rust/target"
for part in LICENSE capi include meson.build meson_options.txt src tests; do
    ln -s "$source/$part" "$tree/$part"
done
cd "$tree/bindings/rust" || exit 1

passed=0 failed=0 log=$work/log
check() {  # check WHAT COMMAND...: one case
    what=$1
    shift
    if "$@" > "$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok: $what"
    else
        failed=$((failed + 1))
        cat "$log"
        echo "FAILED: $what"
    fi
}
tests() {  # tests WHAT COMMAND...: the cases that cargo test counts
    what=$1
    shift
    "$@" > "$log" 2>&1
    status=$?
    sum() { sed -n "s/^test result: .* \([0-9][0-9]*\) $1;.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
    right=$(sum passed) wrong=$(sum failed)
    # Something other than a test failed, or there was none.
    [ "$wrong" = 0 ] && { [ "$status" != 0 ] || [ "$right" = 0 ]; } && wrong=1
    [ "$wrong" = 0 ] || cat "$log"
    passed=$((passed + right)) failed=$((failed + wrong))
    echo "$what: $right passed, $wrong failed"
}
says() {  # says TEXT COMMAND...: it fails, and says so
    text=$1
    shift
    ! "$@" > "$log" 2>&1 && grep -qF "$text" "$log"
}

check "Cargo.lock is of version 3, which every cargo from 1.63 on reads" grep -qx 'version = 3' Cargo.lock

# ndarray, the optional dependency, is all that is not in the repository.
features=--all-features
if ! timeout 600 "$cargo" fetch --locked > "$log" 2>&1; then
    echo "SKIP: rust with ndarray: cargo fetch cannot reach crates.io: $(grep -v '^ *$' "$log" | tail -n 1)"
    features=
    sed -i -e '/^ndarray = {/d' -e 's/^ndarray = \[.*/ndarray = []/' negcos/Cargo.toml
    rm Cargo.lock
    "$cargo" generate-lockfile --offline > "$log" 2>&1 || { cat "$log"; exit 1; }
fi

export CARGO_TARGET_DIR="$odd/target"
tests "cargo test" installed "$cargo" test --locked --offline --no-fail-fast
if [ -n "$features" ]; then
    tests "cargo test --all-features" installed "$cargo" test --locked --offline --no-fail-fast -p negcos $features
fi
# shellcheck disable=SC2016
added() {  # the line of the main README, in a crate beside a clone, with the README's program
    rm -rf "$work/example" "$work/negcos" && ln -s "$tree" "$work/negcos" &&
        "$cargo" init -q --vcs none --name example "$work/example" && cd "$work/example" &&
        sed -n '/^```rust$/,/^```$/p' "$source/bindings/rust/README.md" | sed -n '2,/^```/p' |
        sed '/^```/d' > src/main.rs && CARGO_NET_OFFLINE=true sh -c \
        "$("$source/tests/install_line.sh" "$source" 'Rust, beside the clone')" &&
        installed "$cargo" run --offline -q | grep '^loss .*, accuracy'
    status=$?
    cd "$tree/bindings/rust" && return $status
}
check "the main README's line" added
example() { installed "$cargo" run --locked --offline -q --example two_tower | grep -q '^Recall@10 .* before, .* after$'; }
check "the example runs" example
if "$cargo" clippy --version > /dev/null 2>&1; then
    check "cargo clippy" installed "$cargo" clippy --locked --offline --all-targets $features -- -D warnings
else
    echo "SKIP: rust with clippy: not installed"
fi

# Without a library: documentation is all that can be had, and errors say what is missing.
nowhere=$work/nowhere
mkdir -p "$nowhere" && printf '#!/bin/sh\nexit 1\n' > "$nowhere/meson" && chmod +x "$nowhere/meson"
without() { env PKG_CONFIG_PATH= PKG_CONFIG_LIBDIR="$nowhere" PATH="$nowhere:$PATH" "$@"; }
doc() { without env DOCS_RS=1 RUSTDOCFLAGS="-D warnings" "$cargo" doc --locked --offline --no-deps $features; }
refused() { says "$1" without env NEGCOS_SYS_SOURCE="$2" "$cargo" check --locked --offline -p negcos-sys; }
export CARGO_TARGET_DIR="$work/target-without"
check "cargo doc" doc
check "no library installed" refused "negcos-sys: no installed negcos" 0
check "no way to build one" refused "negcos-sys: it needs meson" 1
check "neither" refused "and it cannot be built from source: it needs meson" ""
no_utf8=$work/$(printf 'not\377UTF-8')
mkdir -p "$no_utf8" && ln -sfn "$(dirname "$pc")" "$no_utf8/pkgconfig"
check "a folder that cargo cannot be told of" says "is not UTF-8" env NEGCOS_SYS_SOURCE=0 \
    PKG_CONFIG_PATH="$no_utf8/pkgconfig" "$cargo" check --locked --offline -p negcos-sys
check "an unknown value of NEGCOS_SYS_SOURCE" refused 'NEGCOS_SYS_SOURCE is "yes"' yes

# From source: as a published crate, whose sources are copies.
export CARGO_TARGET_DIR="$odd/target-source"
rm -rf "$CARGO_TARGET_DIR/package"
check "the files of negcos's package" "$cargo" package --locked --offline --allow-dirty --list -p negcos
check "the package of negcos-sys" "$cargo" package --locked --offline --allow-dirty --no-verify -p negcos-sys
crate=$(echo "$CARGO_TARGET_DIR"/package/negcos-sys-*.crate)
rm -rf negcos-sys && mkdir negcos-sys && tar -xzf "$crate" -C negcos-sys --strip-components=1
# Its files are of one date, whatever has changed in them; by dates cargo would not see it.
cmp -s "$crate" "$work/negcos-sys.crate" || rm -rf "$CARGO_TARGET_DIR/debug"
cp "$crate" "$work/negcos-sys.crate"
rm -f "$CARGO_TARGET_DIR"/debug/deps/bits-*
tests "cargo test, built from source" env NEGCOS_SYS_SOURCE=1 "$cargo" test --locked --offline -p negcos --test bits
static() {
    binary=$(find "$CARGO_TARGET_DIR/debug/deps" -name 'bits-*' -perm -u+x)
    readelf -d "$binary" > "$work/dynamic" && grep -q NEEDED "$work/dynamic" && ! grep libnegcos "$work/dynamic"
}
check "the library built from source is linked statically" static

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
