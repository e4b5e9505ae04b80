#!/usr/bin/env bash
# Three stages on two to three times as many episodes as those of trials/six, whose first two stages they go on from, 107 minutes with them: what they gave is in docs/log.md, "What was
# learnt by heart, and what was not seen". Every step survives an interruption: the same command continues.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
set -euo pipefail
cd "$(dirname "$0")/../../.."
# All of it, though of its last three stages only the data is needed that was recorded before the first of them.
bash docs/trials/six/train.sh
data=data/seven runs=runs/seven configs=docs/trials/seven
. docs/chain.sh

second=(--policy runs/six/driven/checkpoints/last --precision int8 --noise 0 --policy-share 0.7)
record driven2 push 1500 "${second[@]}" --seed 200000
record driven2 sequence 2000 "${second[@]}" --seed 210000
record more sequence 6000 --noise 0.02 --detours 0.02 --seed 430000
stage together

third=(together --policy-share 0.9)
drive driven3 push 1200 "${third[@]}" --seed 500000
drive driven3 sequence 2800 together --policy-share 0.85 --seed 510000
drive driven3-short remember 300 "${third[@]}" --seed 520000 --delay-min 5 --delay-max 40
drive driven3 remember 350 "${third[@]}" --seed 530000 --delay-min 60 --delay-max 240
drive driven3 pick_place 400 "${third[@]}" --seed 540000
drive driven3 reach 300 "${third[@]}" --seed 550000
stage again

fourth=(again --policy-share 0.9)
drive driven4 push 1200 "${fourth[@]}" --seed 600000
drive driven4 sequence 3200 "${fourth[@]}" --seed 610000
drive driven4 remember 300 "${fourth[@]}" --seed 630000 --delay-min 60 --delay-max 240
drive driven4 pick_place 300 "${fourth[@]}" --seed 640000
drive driven4 reach 200 "${fourth[@]}" --seed 650000
stage alone

# The mean of the weights of the last two stages.
mean=runs/seven/mean
[ -d "$mean" ] || "$robomamba" convert --from robomamba --average runs/seven/{again,alone}/checkpoints/last --to "$mean" --quantize bf16
