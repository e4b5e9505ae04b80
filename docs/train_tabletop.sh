#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in twelve stages, four hours in all and one and a quarter
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
stage tabletop-pushes

# Memory. Encoders and connector are frozen from here on. First `remember` alone: as the expert plays it, then driven by a policy whose
# motion does not tell which button is the right one.
record short remember 3500 --noise 0 --seed 300000 --delay-min 5 --delay-max 30
stage tabletop-cues
drive driven4 remember 4000 tabletop-cues --policy-share 0.6 --seed 310000 --delay-min 5 --delay-max 40
stage tabletop-cues-driven

# Then everything together, driven again and again.
fifth=(tabletop-cues-driven --policy-share 0.7)
drive driven5 remember 1500 "${fifth[@]}" --seed 320000 --delay-min 5 --delay-max 80
drive driven5-long remember 1000 "${fifth[@]}" --seed 330000 --delay-min 80 --delay-max 240
stage tabletop-together

drive driven6 remember 1400 tabletop-together --policy-share 0.85 --seed 340000 --delay-min 5 --delay-max 220
drive driven6 sequence 1100 tabletop-together --policy-share 0.6 --seed 350000
drive driven6 push 500 tabletop-together --policy-share 0.8 --seed 360000
stage tabletop-together-driven

record detours sequence 1200 --noise 0.02 --detours 0.02 --seed 370000
record detours remember 1200 --noise 0.02 --detours 0.03 --seed 380000 --delay-min 5 --delay-max 240
drive driven7 sequence 600 tabletop-together-driven --policy-share 0.92 --seed 390000
drive driven7 remember 800 tabletop-together-driven --policy-share 0.95 --seed 400000 --delay-min 5 --delay-max 220
drive driven7 push 500 tabletop-together-driven --policy-share 0.9 --seed 410000
stage tabletop-alone

# A head that chooses among several plans, driven again and again.
record more-detours sequence 1600 --noise 0.02 --detours 0.02 --seed 570000
record more-detours remember 900 --noise 0.02 --detours 0.03 --seed 580000 --delay-min 5 --delay-max 240
drive driven8 sequence 1300 tabletop-alone --policy-share 0.8 --seed 500000
drive driven8 push 1200 tabletop-alone --policy-share 0.85 --seed 510000
drive driven8 pick_place 400 tabletop-alone --policy-share 0.8 --seed 520000
drive driven8 reach 300 tabletop-alone --policy-share 0.8 --seed 530000
drive driven8 remember 800 tabletop-alone --policy-share 0.9 --seed 540000 --delay-min 5 --delay-max 220
stage tabletop-modes

drive driven9 sequence 2000 tabletop-modes --policy-share 0.85 --seed 600000
drive driven9 push 1500 tabletop-modes --policy-share 0.9 --seed 610000
drive driven9 remember 700 tabletop-modes --policy-share 0.92 --seed 620000 --delay-min 5 --delay-max 220
drive driven9 pick_place 400 tabletop-modes --policy-share 0.9 --seed 630000
drive driven9 reach 300 tabletop-modes --policy-share 0.9 --seed 640000
stage tabletop-modes-driven

drive driven10 sequence 1600 tabletop-modes-driven --policy-share 0.95 --seed 700000
drive driven10 push 1200 tabletop-modes-driven --policy-share 0.92 --seed 710000
drive driven10 remember 600 tabletop-modes-driven --policy-share 0.92 --seed 720000 --delay-min 5 --delay-max 220
drive driven10 pick_place 400 tabletop-modes-driven --policy-share 0.9 --seed 730000
drive driven10 reach 300 tabletop-modes-driven --policy-share 0.9 --seed 740000
stage tabletop
