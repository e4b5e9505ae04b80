#!/usr/bin/env bash
# A chain of five stages in bf16 that was to take less than two hours and fell short: what it gave is in docs/log.md, "Five stages in bf16". Every step survives
# an interruption: the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/../../.."
data=data/five runs=runs/five configs=docs/trials/five
. docs/chain.sh

record experts reach 6000 --noise 0.03 --blunders 0.06
record experts push 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts pick_place 7000 --noise 0.03 --detours 0.005 --blunders 0.04
record experts sequence 3000 --noise 0.02 --detours 0.02 --blunders 0.03
record short remember 3000 --noise 0.02 --detours 0.02 --seed 300000 --delay-min 5 --delay-max 30
stage frames

first=(frames --policy-share 0.7 --stateless)
drive driven1 push 2000 "${first[@]}" --seed 100000
drive driven1 pick_place 1500 "${first[@]}" --seed 110000
drive driven1 reach 800 "${first[@]}" --seed 120000
drive driven1 sequence 600 "${first[@]}" --seed 130000
drive driven1 remember 1000 "${first[@]}" --seed 140000 --delay-min 5 --delay-max 30
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
drive driven3 push 1000 "${third[@]}" --seed 500000
drive driven3 sequence 1300 "${third[@]}" --seed 510000
drive driven3-short remember 900 "${third[@]}" --seed 520000 --delay-min 5 --delay-max 40
drive driven3 remember 600 "${third[@]}" --seed 530000 --delay-min 60 --delay-max 240
drive driven3 pick_place 250 "${third[@]}" --seed 540000
drive driven3 reach 150 "${third[@]}" --seed 550000
stage again
