#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in six stages; the result is in runs/train/tabletop-mean.
# Training takes two hours, recording and encoding 45 minutes. After an interruption the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/.."
data=data/tabletop runs=runs/train configs=configs/tabletop
. scripts/chain.sh

record experts reach 6000 --noise 0.03 --blunders 0.06
record experts push 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts pick_place 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts sequence 3000 --noise 0.02 --detours 0.02 --blunders 0.03
record short remember 3000 --noise 0.02 --detours 0.02 --seed 300000 --delay-min 5 --delay-max 30
record cue remember 2500 --noise 0.02 --detours 0.02 --seed 800000 --delay-min 1 --delay-max 6
record more sequence 6000 --noise 0.02 --detours 0.02 --seed 430000
stage 1-frames tabletop-frames

first=(tabletop-frames --policy-share 0.7 --stateless)
drive driven1 push 1400 "${first[@]}" --seed 100000
drive driven1 pick_place 900 "${first[@]}" --seed 110000
drive driven1 reach 500 "${first[@]}" --seed 120000
drive driven1 sequence 1100 "${first[@]}" --seed 130000
drive driven1 remember 600 "${first[@]}" --seed 140000 --delay-min 1 --delay-max 15
stage 2-driven tabletop-driven

# Memory, and all families together. Encoders and connector are frozen from here on, so every frame is encoded once.
second=(tabletop-driven --policy-share 0.7)
drive driven2 push 1500 "${second[@]}" --seed 200000
drive driven2 sequence 2000 "${second[@]}" --seed 210000
drive driven2-short remember 1200 "${second[@]}" --seed 220000 --delay-min 5 --delay-max 40
record long remember 700 --noise 0.02 --detours 0.03 --seed 440000 --delay-min 40 --delay-max 240
stage 3-together tabletop-together

third=(tabletop-together --policy-share 0.9)
drive driven3 push 1200 "${third[@]}" --seed 500000
drive driven3 sequence 2800 tabletop-together --policy-share 0.85 --seed 510000
drive driven3-short remember 300 "${third[@]}" --seed 520000 --delay-min 5 --delay-max 40
drive driven3 remember 350 "${third[@]}" --seed 530000 --delay-min 60 --delay-max 240
drive driven3 pick_place 400 "${third[@]}" --seed 540000
drive driven3 reach 300 "${third[@]}" --seed 550000
stage 4-again tabletop-again

fourth=(tabletop-again --policy-share 0.9)
drive driven4 push 1200 "${fourth[@]}" --seed 600000
drive driven4 sequence 3200 "${fourth[@]}" --seed 610000
drive driven4 remember 300 "${fourth[@]}" --seed 630000 --delay-min 60 --delay-max 240
drive driven4 pick_place 300 "${fourth[@]}" --seed 640000
drive driven4 reach 200 "${fourth[@]}" --seed 650000
stage 5-alone tabletop-alone

fifth=(tabletop-alone --policy-share 0.9)
drive driven5 push 2200 "${fifth[@]}" --seed 700000
drive driven5 sequence 1000 "${fifth[@]}" --seed 710000
drive driven5 pick_place 200 "${fifth[@]}" --seed 740000
drive driven5 reach 150 "${fifth[@]}" --seed 750000
stage 6-last tabletop

# The mean of the weights of the last two stages does better than either, because each has forgotten other scenes.
mean=runs/train/tabletop-mean
[ -d "$mean" ] || "$robomamba" convert --from robomamba --average runs/train/tabletop{-alone,}/checkpoints/last --to "$mean" --quantize bf16
