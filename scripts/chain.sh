# What the scripts share that train a policy in stages; sourced by them, in the project's root. They say where data, runs and configurations are:
# `data`, `runs` and `configs`.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
robomamba=${ROBOMAMBA:-target/release/robomamba}
[ -n "${ROBOMAMBA:-}" ] || cargo build --release --features train

# folder family episodes [options]; a complete data set is left alone.
record() {
    local folder=$data/$1 family=$2 episodes=$3
    shift 3
    [ -d "$folder/$family" ] || "$robomamba" data record --out "$folder" --family "$family" --episodes "$episodes" "$@"
}
# The same, driven by the policy that a stage gave and labelled by the expert (DAgger).
drive() {
    local folder=$1 family=$2 episodes=$3 stage=$4
    shift 4
    record "$folder" "$family" "$episodes" --policy "$runs/$stage/checkpoints/last" --precision int8 --noise 0 "$@"
}
# Trains a stage; one that is through is left alone.
stage() {
    local name=$1
    [ -e "$runs/$name/finished" ] || "$robomamba" train --config "$configs/$name.toml"
    touch "$runs/$name/finished"
}
