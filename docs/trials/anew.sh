#!/usr/bin/env bash
# A policy from random weights in four stages, 79 minutes of training, and about 25 more for recording and encoding; the result is in
# runs/trials/anew-sequence/checkpoints/last. It does not remember colours: see docs/log.md. The same command continues after an interruption.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/../.."
robomamba=${ROBOMAMBA:-target/release/robomamba}
[ -n "${ROBOMAMBA:-}" ] || cargo build --release --features train

# folder family episodes [options]; a complete data set is left alone.
record() {
    local folder=data/trials/anew/$1 family=$2 episodes=$3
    shift 3
    [ -d "$folder/$family" ] || "$robomamba" data record --out "$folder" --family "$family" --episodes "$episodes" "$@"
}
# The same, driven by the policy that a stage gave and labelled by the expert (DAgger).
drive() {
    local folder=$1 family=$2 episodes=$3 stage=$4
    shift 4
    record "$folder" "$family" "$episodes" --policy "runs/trials/$stage/checkpoints/last" --precision int8 --noise 0 "$@"
}
# Trains a stage; one that is through is left alone.
stage() {
    local name=$1
    [ -e "runs/trials/$name/finished" ] || "$robomamba" train --config "docs/trials/$name.toml"
    touch "runs/trials/$name/finished"
}
# glibc gives a gigabyte of buffers back to the system at every step unless told not to; a seventh of the time.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=12000000000 MALLOC_TOP_PAD_=268435456

record experts reach 6000 --noise 0.03 --blunders 0.06
record experts push 8000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts pick_place 8000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts sequence 5000 --noise 0.02 --detours 0.02 --blunders 0.03
record experts remember 2500 --noise 0.02 --detours 0.03 --delay-min 5 --delay-max 240
stage anew-frames

first=(anew-frames --policy-share 0.7 --stateless --seed 100000)
drive driven1 push 2500 "${first[@]}"
drive driven1 pick_place 1800 "${first[@]}"
drive driven1 reach 1000 "${first[@]}"
drive driven1 sequence 800 "${first[@]}"
stage anew-driven

second=(anew-driven --policy-share 0.7)
drive driven2 push 800 "${second[@]}" --seed 110000
drive driven2 remember 600 "${second[@]}" --seed 120000 --delay-min 5 --delay-max 220
drive driven2 sequence 800 "${second[@]}" --seed 130000
stage anew-together

drive driven3 sequence 1800 anew-together --policy-share 0.85 --seed 140000
drive driven3 remember 1400 anew-together --policy-share 0.9 --seed 160000 --delay-min 5 --delay-max 220
drive driven3 push 700 anew-together --policy-share 0.9 --seed 150000
drive driven3 pick_place 300 anew-together --policy-share 0.9 --seed 170000
drive driven3 reach 200 anew-together --policy-share 0.9 --seed 180000
record more sequence 3500 --noise 0.02 --detours 0.02 --seed 200000
stage anew-sequence
