#!/usr/bin/env bash
# A real Slurm of four nodes on this machine, of two processors each, in FOLDER; installs it if need be.
#   scripts/cluster/slurm.sh start|stop|node N FOLDER
# `node N` starts the daemon of node N (again).
set -euo pipefail

run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v slurmctld > /dev/null; then
    run apt-get update -qq
    run apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge > /dev/null
fi

configure() {
    mkdir -p "$folder"/{state,log}
    cat > "$folder/slurm.conf" <<CONF
ClusterName=embc
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd-%n
SlurmdTimeout=20
InactiveLimit=0
KillWait=5
ReturnToService=2
MpiDefault=none
NodeName=n[1-4] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[17001-17004] CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    echo 'CgroupPlugin=cgroup/v1' > "$folder/cgroup.conf"
}

node() {
    mkdir -p "$folder/spool-n$1"
    run env SLURM_CONF="$folder/slurm.conf" slurmd -N "n$1"
}

action=$1
case "$action" in
    start)
        folder=$(mkdir -p "$2" && realpath "$2")
        configure
        if ! pgrep -x munged > /dev/null; then
            run mkdir -p /run/munge && run chown munge: /run/munge
            run runuser -u munge -- /usr/sbin/munged
        fi
        run env SLURM_CONF="$folder/slurm.conf" slurmctld
        for n in 1 2 3 4; do node "$n"; done
        export SLURM_CONF="$folder/slurm.conf"
        for _ in $(seq 60); do
            [ "$(sinfo -h -N -t idle 2> /dev/null | wc -l)" = 4 ] && exit 0
            sleep 1
        done
        sinfo -N >&2 || true
        tail -5 "$folder"/log/* >&2
        exit 1 ;;
    node) folder=$(realpath "$3"); node "$2" ;;
    stop)
        folder=$(realpath "$2")
        for pid in "$folder"/*.pid; do
            pid=$(cat "$pid")
            run kill "$pid" 2> /dev/null || continue
            while run kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
        done ;;
esac
