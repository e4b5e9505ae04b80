#!/usr/bin/env bash
# Records the training data of the tabletop policy and trains it in eleven stages, two and a half hours in all and about an hour
# for recording and encoding; the result is in runs/train/tabletop-mean. Every step survives an interruption: the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/.."
data=data/tabletop runs=runs/train configs=configs
. docs/chain.sh

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
stage tabletop-alone

# What is left is to press the button: `remember` with nearly as much pressing as waiting, and everything again as the policy does it by now.
sixth=(tabletop-alone --policy-share 0.9)
record short6 remember 1500 --noise 0.02 --detours 0.02 --seed 300000 --delay-min 5 --delay-max 30
record long6 remember 700 --noise 0.02 --detours 0.03 --seed 440000 --delay-min 40 --delay-max 240
record more6 sequence 2000 --noise 0.02 --detours 0.02 --seed 430000
drive driven6-short remember 1200 "${sixth[@]}" --seed 400000 --delay-min 5 --delay-max 40
drive driven6 remember 700 tabletop-alone --policy-share 0.93 --seed 410000 --delay-min 40 --delay-max 240
drive driven6 sequence 900 tabletop-alone --policy-share 0.93 --seed 450000
drive driven6 push 350 "${sixth[@]}" --seed 460000
drive driven6 pick_place 200 "${sixth[@]}" --seed 470000
drive driven6 reach 150 "${sixth[@]}" --seed 480000
stage tabletop-press

seventh=(tabletop-press --policy-share 0.9)
drive driven7 push 1300 "${seventh[@]}" --seed 5040000
drive driven7 sequence 1500 tabletop-press --policy-share 0.93 --seed 5030000
drive driven7-short remember 500 tabletop-press --policy-share 0.95 --seed 5010000 --delay-min 5 --delay-max 40
drive driven7 remember 600 tabletop-press --policy-share 0.95 --seed 5020000 --delay-min 60 --delay-max 240
drive driven7 pick_place 250 "${seventh[@]}" --seed 5050000
drive driven7 reach 150 "${seventh[@]}" --seed 5060000
record experts6 push 2500 --noise 0.03 --detours 0.005 --seed 550000
stage tabletop-again

eighth=(tabletop-again --policy-share 0.93)
drive driven8 remember 900 tabletop-again --policy-share 0.95 --seed 620000 --delay-min 60 --delay-max 240
drive driven8-short remember 600 tabletop-again --policy-share 0.95 --seed 610000 --delay-min 5 --delay-max 40
drive driven8 sequence 2000 tabletop-again --policy-share 0.95 --seed 630000
drive driven8 push 500 "${eighth[@]}" --seed 640000
drive driven8 pick_place 150 "${eighth[@]}" --seed 650000
drive driven8 reach 100 "${eighth[@]}" --seed 660000
stage tabletop

# What one of the last two stages has unlearnt the other still knows: the mean of their weights does better than either.
mean=runs/train/tabletop-mean
[ -d "$mean" ] || "$robomamba" convert --from robomamba --average runs/train/tabletop{-again,}/checkpoints/last --to "$mean" --quantize bf16
