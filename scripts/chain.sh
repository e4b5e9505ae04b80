# Functions of the scripts that train a policy in stages, which source this file in the project's root.
# They set the folders of data, runs and configurations: `data`, `runs` and `configs`.
# ROBOMAMBA names a binary to use instead of building one (`cargo build --release --features train`).
robomamba=${ROBOMAMBA:-target/release/robomamba}
[ -n "${ROBOMAMBA:-}" ] || cargo build --release --features train

# Records a data set unless it exists: folder family episodes [options].
record() {
    local folder=$data/$1 family=$2 episodes=$3
    shift 3
    [ -d "$folder/$family" ] || "$robomamba" data record --out "$folder" --family "$family" --episodes "$episodes" "$@"
}
# The same, but the policy of a stage drives and the expert labels (DAgger): folder family episodes run [options].
drive() {
    local folder=$1 family=$2 episodes=$3 run=$4
    shift 4
    record "$folder" "$family" "$episodes" --policy "$runs/$run/checkpoints/last" --precision int8 --noise 0 "$@"
}
# Trains a stage unless it is finished: configuration run. The run is the folder that the configuration names.
stage() {
    local config=$1 run=$2
    [ -e "$runs/$run/finished" ] || "$robomamba" train --config "$configs/$config.toml"
    touch "$runs/$run/finished"
}
