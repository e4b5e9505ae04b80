#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it; the result is in runs/train/tabletop/checkpoints/last.
# Every step survives an interruption: the same command continues.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release
robomamba=target/release/robomamba

# family episodes [options]; a complete data set is left alone.
record() {
    local family=$1 episodes=$2
    shift 2
    [ -d "data/tabletop/$family" ] ||
        "$robomamba" data record --family "$family" --episodes "$episodes" --noise 0.03 --blunders 0.06 --out data/tabletop "$@"
}
record reach 2000
record push 3000
record pick_place 3000
record sequence 3000
record remember 1500 --delay-min 20 --delay-max 240

"$robomamba" train --config configs/tabletop.toml "$@"
