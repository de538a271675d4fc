#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, all of it in one folder; needs root, slurm-wlm and munge.
#
#   eval "$(slurm_cluster.sh start FOLDER)"
#   slurm_cluster.sh stop FOLDER
#
# Without cgroups: the memory of a job is polled each second, and a job over its limit is killed.
set -euo pipefail

start() {
    local folder=$1
    mkdir -p "$folder"/{bin,munge,state,spool}
    chmod 755 "$folder" # Its daemon refuses a socket that not everyone can reach.
    head -c 128 /dev/urandom >"$folder/munge/key"
    chown -R munge "$folder/munge"
    chmod 755 "$folder/munge"
    chmod 600 "$folder/munge/key"
    runuser -u munge -- munged --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

    local port=$((20000 + RANDOM % 10000))
    cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.log
MinJobAge=3600
KillWait=2
$(slurmd -C | head -n 1) NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    # Snakemake's job steps clear the environment of Slurm's variables; other clusters have their configuration in /etc.
    printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$folder/slurm.conf" "$(command -v srun)" >"$folder/bin/srun"
    chmod +x "$folder/bin/srun"

    export SLURM_CONF=$folder/slurm.conf
    slurmctld
    slurmd
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -qx idle; then
            printf 'export SLURM_CONF=%q PATH=%q:$PATH\n' "$folder/slurm.conf" "$folder/bin"
            return
        fi
        sleep 0.2
    done
    echo "error: the node did not come up: see $folder/slurmctld.log and $folder/slurmd.log" >&2
    exit 1
}

stop() {
    local folder=$1 pid
    export SLURM_CONF=$folder/slurm.conf
    scancel --user="$(id -un)" 2>/dev/null || true
    for file in slurmd.pid slurmctld.pid munge/pid; do
        pid=$(cat "$folder/$file" 2>/dev/null) || continue
        kill "$pid" && tail --pid="$pid" --sleep-interval=0.1 -f /dev/null
    done
}

case ${1:-} in
start | stop) "$@" ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
