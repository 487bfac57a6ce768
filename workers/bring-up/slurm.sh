#!/usr/bin/env bash
# A study on the nodes of a Slurm job: a Ray head on the first, workers on all, the controller beside the head.
#   sbatch --nodes=4 --gpus-per-node=8 workers/bring-up/slurm.sh studies/smoke.yaml
#   sbatch --nodes=4 --gpus-per-node=8 workers/bring-up/slurm.sh studies/smoke.yaml resume
# To be submitted from a folder that all nodes see, with mergesearch on PATH there (an activated environment).
# Variables: PROFILE (a workers profile with `address: auto`), PORT (the head's), RAY_HEAD_OPTIONS, RAY_WORKER_OPTIONS.
#SBATCH --job-name=mergesearch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --output=mergesearch-%j.log
set -euo pipefail

study=${1:?usage: sbatch workers/bring-up/slurm.sh STUDY_FILE [launch|resume]}
verb=${2:-launch}
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || verb=resume   # requeued: what was evaluated is in the store
profile=${PROFILE:-workers/on-cluster.yaml}
port=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}        # two jobs may share a node
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}

# Nodes are shared with others: only who holds this token may talk to the cluster.
private=$(mktemp --directory "$PWD/.ray-$SLURM_JOB_ID-XXXXXX")
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$private/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token RAY_USAGE_STATS_ENABLED=0

steps=()
controller=
# shellcheck disable=SC2329  # the trap calls it
finish() {
    trap - EXIT
    for pid in ${controller:+"$controller"} "${steps[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait || true
    rm -rf "$private"
}
trap finish EXIT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address)
address=${address%% *}
export RAY_ADDRESS=$address:$port

on() { srun --nodes=1 --ntasks=1 --overlap --export=ALL --nodelist="$1" "${@:2}"; }
start=(ray start --block --num-cpus="$cpus" --num-gpus="$gpus")

# The options are lists of words.
# shellcheck disable=SC2086
on "${nodes[0]}" "${start[@]}" --head --node-ip-address="$address" --port="$port" --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
    --include-dashboard=false ${RAY_HEAD_OPTIONS:-} &
steps+=($!)
for _ in $(seq 60); do
    if on "${nodes[0]}" ray status > /dev/null 2>&1; then break; fi
    kill -0 "${steps[0]}" 2> /dev/null || { echo "error: the Ray head on ${nodes[0]} ended" >&2; exit 5; }
    sleep 1
done
for node in "${nodes[@]:1}"; do
    # shellcheck disable=SC2086
    on "$node" "${start[@]}" --address="$RAY_ADDRESS" ${RAY_WORKER_OPTIONS:-} &
    steps+=($!)
done

# Slurm's warning before the time is over, and scancel, end the controller cleanly; `resume` goes on.
trap 'kill -TERM "$controller" 2> /dev/null || true' TERM INT
mergesearch "$verb" "$study" --workers "$profile" &
controller=$!
code=0
wait "$controller" || code=$?
while kill -0 "$controller" 2> /dev/null; do wait "$controller" || code=$?; done
controller=
exit "$code"
