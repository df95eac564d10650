#!/bin/bash
# A batch on Slurm without submitit: sbatch scripts/deploy/slurm.sh BOARDS OUT. Each of the jobs runs the whole batch on
# its GPU and leaves to the others what they are at work on. Both folders lie on a disk that all nodes share.
#SBATCH --job-name=framepack-relax
#SBATCH --array=0-7
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@90
set -u
framepack-relax batch "$1" --out "$2" &
trap 'kill -TERM $!' TERM
wait $!
wait $!
code=$?
# 4: stopped by SIGTERM, what is finished is kept
[ "$code" -ne 4 ] || scontrol requeue "${SLURM_JOB_ID}"
exit "$code"
