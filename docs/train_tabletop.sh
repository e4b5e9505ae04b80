#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in four stages; the result is in
# runs/train/tabletop/checkpoints/last. Every step survives an interruption: the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/.."
robomamba=${ROBOMAMBA:-target/release/robomamba}
[ -n "${ROBOMAMBA:-}" ] || cargo build --release --features train

# folder family episodes [options]; a complete data set is left alone.
record() {
    local folder=data/tabletop/$1 family=$2 episodes=$3
    shift 3
    [ -d "$folder/$family" ] || "$robomamba" data record --out "$folder" --family "$family" --episodes "$episodes" "$@"
}
# The same, driven by the policy that a stage gave and labelled by the expert (DAgger).
drive() {
    local folder=$1 family=$2 episodes=$3 stage=$4
    shift 4
    record "$folder" "$family" "$episodes" --policy "runs/train/$stage/checkpoints/last" --precision int8 --noise 0 "$@"
}
# Trains a stage; one that is through is left alone.
stage() {
    local name=$1
    [ -e "runs/train/$name/finished" ] || "$robomamba" train --config "configs/$name.toml"
    touch "runs/train/$name/finished"
}
# glibc gives a gigabyte of buffers back to the system at every step unless told not to; a seventh of the time.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=12000000000 MALLOC_TOP_PAD_=268435456

noise=(--noise 0.03 --blunders 0.06)
record demonstrations reach 4000 "${noise[@]}"
record demonstrations push 5000 "${noise[@]}"
record demonstrations pick_place 5000 "${noise[@]}"
record demonstrations sequence 2500 "${noise[@]}"
record demonstrations remember 2000 "${noise[@]}" --delay-min 20 --delay-max 240
record clean remember 1000 --noise 0 --seed 200000 --delay-min 5 --delay-max 60
stage tabletop-frames

first=(tabletop-frames --policy-share 0.7 --stateless --seed 100000)
drive driven1 push 1500 "${first[@]}"
drive driven1 pick_place 1000 "${first[@]}"
drive driven1 reach 500 "${first[@]}"
drive driven1 sequence 500 "${first[@]}"
stage tabletop-driven

second=(tabletop-driven --policy-share 0.8 --seed 110000)
drive driven2 push 1500 "${second[@]}"
drive driven2 pick_place 500 "${second[@]}"
drive driven2 reach 300 "${second[@]}"
drive driven2 sequence 400 "${second[@]}"
stage tabletop-driven-again

third=(tabletop-driven-again --policy-share 0.85 --seed 120000)
drive driven3 push 1500 "${third[@]}"
drive driven3 pick_place 400 "${third[@]}"
drive driven3 reach 250 "${third[@]}"
stage tabletop
