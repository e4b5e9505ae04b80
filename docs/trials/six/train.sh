#!/usr/bin/env bash
# A chain of five stages in bf16 with `loss.naming`, 119 minutes, that remembers and falls short in `sequence`: what it gave is in docs/log.md, "Five stages with names
# for colours". Every step survives an interruption: the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/../../.."
data=data/six runs=runs/six configs=docs/trials/six
. docs/chain.sh

record experts reach 6000 --noise 0.03 --blunders 0.06
record experts push 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts pick_place 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts sequence 3000 --noise 0.02 --detours 0.02 --blunders 0.03
record short remember 3000 --noise 0.02 --detours 0.02 --seed 300000 --delay-min 5 --delay-max 30
record cue remember 2500 --noise 0.02 --detours 0.02 --seed 800000 --delay-min 1 --delay-max 6
stage frames

first=(frames --policy-share 0.7 --stateless)
drive driven1 push 1400 "${first[@]}" --seed 100000
drive driven1 pick_place 1100 "${first[@]}" --seed 110000
drive driven1 reach 700 "${first[@]}" --seed 120000
drive driven1 sequence 500 "${first[@]}" --seed 130000
drive driven1 remember 800 "${first[@]}" --seed 140000 --delay-min 1 --delay-max 15
stage driven

# Memory, and all families together. Encoders and connector are frozen, so every frame is encoded once.
second=(driven --policy-share 0.7)
drive driven2 push 900 "${second[@]}" --seed 200000
drive driven2 sequence 1000 "${second[@]}" --seed 210000
drive driven2-short remember 1200 "${second[@]}" --seed 220000 --delay-min 5 --delay-max 40
record long remember 700 --noise 0.02 --detours 0.03 --seed 440000 --delay-min 40 --delay-max 240
record more sequence 2000 --noise 0.02 --detours 0.02 --seed 430000
stage together

third=(together --policy-share 0.9)
drive driven3 push 900 "${third[@]}" --seed 500000
drive driven3 sequence 1400 together --policy-share 0.85 --seed 510000
drive driven3-short remember 300 "${third[@]}" --seed 520000 --delay-min 5 --delay-max 40
drive driven3 remember 350 "${third[@]}" --seed 530000 --delay-min 60 --delay-max 240
drive driven3 pick_place 250 "${third[@]}" --seed 540000
drive driven3 reach 150 "${third[@]}" --seed 550000
stage again

fourth=(again --policy-share 0.93)
drive driven4 push 600 "${fourth[@]}" --seed 600000
drive driven4 sequence 2000 "${fourth[@]}" --seed 610000
drive driven4 remember 300 "${fourth[@]}" --seed 630000 --delay-min 60 --delay-max 240
drive driven4 pick_place 150 "${fourth[@]}" --seed 640000
drive driven4 reach 100 "${fourth[@]}" --seed 650000
stage last

# The mean of the weights of the last two stages.
mean=runs/six/mean
[ -d "$mean" ] || "$robomamba" convert --from robomamba --average runs/six/{again,last}/checkpoints/last --to "$mean" --quantize bf16
