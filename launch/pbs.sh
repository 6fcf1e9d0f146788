#!/bin/sh
# Trains under PBS:  qsub -v "ARGS=CONFIG.toml --flag value ..." launch/pbs.sh
#
# Submit from the checkout. A comma in ARGS ends it: put such values into the config.
# Options of qsub in front of the script win over those below: qsub -l select=8:ncpus=4:mpiprocs=4
# Stop:   qsig -s SIGUSR1 JOB    saves the run; qsub with --run-dir runs/pbs-JOB in ARGS goes on
# Before the time limit the run is saved, and the script submits itself again to go on, with the
# same select, place, walltime, queue, account and project: other options must stand below.

#PBS -N distnn
#PBS -l select=2:ncpus=4:mpiprocs=4
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -j oe

cd "$PBS_O_WORKDIR" || exit 1
# site: modules
# module load python
if [ -d .venv ]; then PATH=$PWD/.venv/bin:$PATH; fi    # what launch/local makes in the checkout

# What this job was given, on the command line or above. PBS breaks long lines, with a tab behind.
about=$(qstat -f "$PBS_JOBID" | sed -e ':a' -e '$!{N;ba' -e '}' -e 's/\n\t//g')
given() { printf '%s\n' "$about" | sed -n "s/^ *$1 = //p"; }
seconds=$(given 'Resource_List\.walltime' | awk -F: '{ print 3600 * $1 + 60 * $2 + $3 }')

# Where neither the flags nor the config name a run directory: the same in the job that goes on.
export DISTNN_RUN_DIR="${DISTNN_RUN_DIR:-runs/pbs-${PBS_JOBID%%.*}}"
ranks=$(wc -l <"$PBS_NODEFILE")    # a line per rank

# site: -f is MPICH's, --hostfile Open MPI's. ARGS is cut at its blanks.
# shellcheck disable=SC2086
mpirun -f "$PBS_NODEFILE" -n "$ranks" python -m distnn.train ${ARGS:-} --resume &
mpi=$!
stopped=no
trap 'stopped=yes; kill -USR1 $mpi' USR1 TERM
clock=
if [ "${seconds:-0}" -gt 120 ]; then    # a limit: two minutes are left for a step and a checkpoint
    (sleep $((seconds - 120)); kill -USR1 $mpi) >/dev/null 2>&1 &
    clock=$!
fi
while :; do    # a signal interrupts the waiting, not the run
    wait $mpi
    code=$?
    kill -0 $mpi 2>/dev/null || break
done
[ -z "$clock" ] || kill "$clock" 2>/dev/null

go_on() {    # in a job like this one
    set -- -v "ARGS=${ARGS:-},DISTNN_RUN_DIR=$DISTNN_RUN_DIR" ${PBS_O_QUEUE:+-q "$PBS_O_QUEUE"}
    for name in select place walltime; do
        value=$(given "Resource_List\.$name")
        [ -z "$value" ] || set -- "$@" -l "$name=$value"
    done
    account=$(given Account_Name)
    project=$(given project | grep -v '^_pbs_project_default$')
    script=launch/pbs.sh
    [ ! -f "$0" ] || script=$0    # PBS's copy, or yours under another name
    qsub "$@" ${account:+-A "$account"} ${project:+-P "$project"} "$script"
}

# 75: stopped on request, and saved. Asked for by the clock, it goes on in a new job.
if [ "$code" = 75 ] && [ "$stopped" = no ]; then
    go_on && exit 0
fi
exit "$code"
