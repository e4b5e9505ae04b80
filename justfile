# Everyday commands; `just --list` shows them. Each is a plain cargo call, so just itself is optional.

# Watch the shipped policy work.
demo *args:
    cargo run --release -- demo {{args}}

# All tests of all crates.
test:
    cargo test --workspace

# What continuous integration checks.
ci:
    bash .ci/run

# Formatting, lints and documentation, with warnings denied.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Record the training data of the tabletop policy, then train it.
train:
    bash docs/train_tabletop.sh

# The kernels' tests under AddressSanitizer (x86-64 Linux); what assembly reads is not seen by it.
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo test -p robomamba-kernels --tests --target x86_64-unknown-linux-gnu --target-dir target/sanitize

# Vector instructions that a release build calls as functions, because a closure on the way to them was not inlined and lost its kernel's instruction set.
# What collects the parameters of a tile (`Map::fold`), and set-up in other crates, may be listed.
outlined:
    cargo build --release
    objdump -d --no-show-raw-insn target/release/robomamba | awk '/^[0-9a-f]+ </ { caller = $2 } /call.*core_arch.*_mm(256|512)/ { print caller, $NF }' | sort | uniq -c | sort -nr
