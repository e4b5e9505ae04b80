#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in eight stages, one and three quarter hours in all and half an hour
# for recording and encoding; the result is in runs/train/tabletop/checkpoints/last. Every step survives an interruption: the same command continues.
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

record experts reach 6000 --noise 0.03 --blunders 0.06
record experts push 8000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts pick_place 8000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts sequence 5000 --noise 0.02 --detours 0.02 --blunders 0.03
record experts remember 2500 --noise 0.02 --detours 0.03 --delay-min 5 --delay-max 240
stage tabletop-frames

first=(tabletop-frames --policy-share 0.7 --stateless --seed 100000)
drive driven1 push 2500 "${first[@]}"
drive driven1 pick_place 1800 "${first[@]}"
drive driven1 reach 1000 "${first[@]}"
drive driven1 sequence 800 "${first[@]}"
stage tabletop-driven

# Memory, and all families together. Encoders and connector are frozen, so every frame is encoded once.
second=(tabletop-driven --policy-share 0.7)
drive driven2 push 800 "${second[@]}" --seed 110000
drive driven2 remember 600 "${second[@]}" --seed 120000 --delay-min 5 --delay-max 220
drive driven2 sequence 800 "${second[@]}" --seed 130000
stage tabletop-together

third=(tabletop-together --policy-share 0.9)
drive driven3 sequence 1800 tabletop-together --policy-share 0.85 --seed 140000
drive driven3 push 700 "${third[@]}" --seed 150000
drive driven3 remember 1400 "${third[@]}" --seed 160000 --delay-min 5 --delay-max 220
drive driven3 pick_place 300 "${third[@]}" --seed 170000
drive driven3 reach 200 "${third[@]}" --seed 180000
record more sequence 3500 --noise 0.02 --detours 0.02 --seed 200000
stage tabletop-sequence

fourth=(tabletop-sequence --policy-share 0.93)
drive driven4 sequence 1400 "${fourth[@]}" --seed 220000
drive driven4 remember 900 "${fourth[@]}" --seed 230000 --delay-min 5 --delay-max 220
drive driven4 push 400 tabletop-sequence --policy-share 0.9 --seed 240000
drive driven4 pick_place 200 tabletop-sequence --policy-share 0.9 --seed 250000
drive driven4 reach 150 tabletop-sequence --policy-share 0.9 --seed 260000
drive driven4-short remember 1800 tabletop-sequence --policy-share 0.7 --seed 280000 --delay-min 5 --delay-max 40
record short remember 3500 --noise 0 --seed 300000 --delay-min 5 --delay-max 30
stage tabletop-cues
stage tabletop-lamp
stage tabletop-remember

fifth=(tabletop-remember --policy-share 0.93)
drive driven5 remember 1000 "${fifth[@]}" --seed 310000 --delay-min 5 --delay-max 220
drive driven5 sequence 500 "${fifth[@]}" --seed 320000
stage tabletop
