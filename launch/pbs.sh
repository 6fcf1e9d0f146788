#!/bin/sh
# Trains under PBS:  qsub -v "ARGS=CONFIG.toml --flag value ..." launch/pbs.sh
#
# Submit from the checkout. A comma in ARGS ends it: put such values into the config.
# Stop:   qsig -s SIGUSR1 JOB    saves the run; qsub with its RUN_DIR goes on where it was
# Before the time limit the run is saved, and the script submits itself again to go on.

#PBS -N distnn
#PBS -l select=2:ncpus=4:mpiprocs=4
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -j oe

LIMIT=14280    # site: the walltime above in seconds, less 120 for a step and a checkpoint

cd "$PBS_O_WORKDIR" || exit 1
# site: modules
# module load python
if [ -d .venv ]; then PATH=$PWD/.venv/bin:$PATH; fi    # what launch/local makes in the checkout

RUN_DIR=${RUN_DIR:-runs/pbs-${PBS_JOBID%%.*}}
ranks=$(wc -l <"$PBS_NODEFILE")    # a line per rank

# site: -f is MPICH's, --hostfile Open MPI's. ARGS is cut at its blanks.
# shellcheck disable=SC2086
mpirun -f "$PBS_NODEFILE" -n "$ranks" \
    python -m distnn.train ${ARGS:-} --run-dir "$RUN_DIR" --resume &
mpi=$!
stopped=no
trap 'stopped=yes; kill -USR1 $mpi' USR1 TERM
(sleep "$LIMIT"; kill -USR1 $mpi) >/dev/null 2>&1 &
clock=$!
while :; do    # a signal interrupts the waiting, not the run
    wait $mpi
    code=$?
    kill -0 $mpi 2>/dev/null || break
done
kill $clock 2>/dev/null

# 75: stopped on request, and saved. Asked for by the clock, it goes on in a new job.
if [ "$code" = 75 ] && [ "$stopped" = no ]; then
    qsub -v "ARGS=${ARGS:-},RUN_DIR=$RUN_DIR" launch/pbs.sh && exit 0
fi
exit "$code"
