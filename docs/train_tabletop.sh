#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in four stages; the result is in
# runs/train/tabletop/checkpoints/last. Every step survives an interruption: the same command continues.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --features train
robomamba=target/release/robomamba

# family episodes [options]; a complete data set is left alone.
record() {
    local family=$1 episodes=$2
    shift 2
    [ -d "data/tabletop/$family" ] ||
        "$robomamba" data record --family "$family" --episodes "$episodes" --noise 0.03 --blunders 0.06 --out data/tabletop "$@"
}
record reach 3000
record push 5000
record pick_place 4000
record sequence 5000
record remember 3000 --delay-min 20 --delay-max 240

# Trains a stage until its schedule, or this many minutes of it, are through; one that is through is left alone.
stage() {
    local config=$1
    shift
    [ -e "runs/train/$config/finished" ] || "$robomamba" train --config "configs/$config.toml" "$@"
    touch "runs/train/$config/finished"
}
# glibc gives a gigabyte of buffers back to the system at every step unless told not to; a seventh of the time.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=12000000000 MALLOC_TOP_PAD_=268435456
stage tabletop-grounding
# The next stage takes over before the learning rate has fallen.
stage tabletop-frames --max-minutes 16.5
stage tabletop-episodes --max-minutes 40
stage tabletop
