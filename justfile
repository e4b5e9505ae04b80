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
    bash scripts/train_tabletop.sh

# The kernels' tests under AddressSanitizer (x86-64 Linux); what assembly reads is not seen by it.
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo test -p robomamba-kernels --tests --target x86_64-unknown-linux-gnu --target-dir target/sanitize

# The kernels' products on AVX-VNNI, AVX2 and portable lanes under Miri (a nightly toolchain with the components
# miri and rust-src): whatever the processor
# has, and without undefined behaviour. Miri takes AVX-VNNI's instruction for one of AVX-512, parts of which are
# named for that.
miri tests="int8_is_the_same":
    RUSTFLAGS="-C target-feature=+avx2,+fma,+avxvnni,+avx512f,+avx512vl,+avx512vnni" MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks" cargo +nightly miri test -p robomamba-kernels --target-dir target/miri --test matmul -- {{tests}}

# Vector instructions that a release build calls as functions, because a closure on the way to them was not inlined
# and lost its kernel's instruction set.
# What collects the parameters of a tile (`Map::fold`), and set-up in other crates, may be listed.
outlined:
    cargo build --release
    objdump -d --no-show-raw-insn target/release/robomamba | awk '/^[0-9a-f]+ </ { caller = $2 } /call.*core_arch.*_mm(256|512)/ { print caller, $NF }' | sort | uniq -c | sort -nr
