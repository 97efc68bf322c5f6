//! What this process may take of its machine: all that is free, or the share that a container or a
//! scheduler's job has.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Cores: those that it may run on, and no more than its job was given.
pub fn cores() -> usize {
    // The first knows of affinity and of the quotas of control groups.
    let all = std::thread::available_parallelism().map_or(1, |n| n.get());
    all.min(job_cores(&variable).unwrap_or(usize::MAX)).max(1)
}

/// Bytes of memory that are free, of the machine's, of its control group's and of its job's; what
/// cannot be told does not count.
pub fn free_memory() -> u64 {
    let of_job = job_memory(&variable);
    let Ok(mut system) = System::new() else { return of_job.unwrap_or(u64::MAX) };
    system.refresh_memory();
    let of_machine = Some(system.available_memory()).filter(|&bytes| bytes > 0);
    let me = Pid::from_u32(std::process::id());
    let only = ProcessesToUpdate::Some(&[me]);
    system.refresh_processes_specifics(only, false, ProcessRefreshKind::nothing().with_memory());
    let me = system.process(me);
    let taken = me.map_or(0, |me| me.memory());
    let of_job = of_job.map(|bytes| bytes.saturating_sub(taken));
    // What files are cached in can be had back.
    let of_group = me.and_then(|me| me.cgroup_limits());
    let of_group = of_group.map(|limits| limits.total_memory.saturating_sub(limits.rss));
    [of_machine, of_group, of_job].into_iter().flatten().min().unwrap_or(u64::MAX)
}

/// Bytes of memory, free or not, of the machine, its control group or its job: the least of them. It is
/// the same from run to run.
pub fn memory() -> u64 {
    let of_job = job_memory(&variable);
    let Ok(mut system) = System::new() else { return of_job.unwrap_or(u64::MAX) };
    system.refresh_memory();
    let of_machine = Some(system.total_memory()).filter(|&bytes| bytes > 0);
    let me = Pid::from_u32(std::process::id());
    let only = ProcessesToUpdate::Some(&[me]);
    system.refresh_processes_specifics(only, false, ProcessRefreshKind::nothing());
    let of_group = system.process(me).and_then(|me| me.cgroup_limits());
    let of_group = of_group.map(|limits| limits.total_memory);
    [of_machine, of_group, of_job].into_iter().flatten().min().unwrap_or(u64::MAX)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok().filter(|&n| n > 0)
}

/// The cores of a Slurm job: of this task, or of the job on this node.
fn job_cores(variable: &dyn Fn(&str) -> Option<u64>) -> Option<usize> {
    let cores = variable("SLURM_CPUS_PER_TASK").or_else(|| variable("SLURM_CPUS_ON_NODE"));
    cores.map(|cores| cores as usize)
}

/// The memory of a Slurm job on this node, which it says in MB.
fn job_memory(variable: &dyn Fn(&str) -> Option<u64>) -> Option<u64> {
    let per_core = || Some(variable("SLURM_MEM_PER_CPU")? * variable("SLURM_CPUS_ON_NODE")?);
    Some(variable("SLURM_MEM_PER_NODE").or_else(per_core)? << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_what_slurm_says() {
        let of = |all: &'static [(&str, u64)]| {
            move |name: &str| all.iter().find(|(of, _)| *of == name).map(|(_, n)| *n)
        };
        let none = of(&[]);
        assert_eq!((job_cores(&none), job_memory(&none)), (None, None));
        let by_core = of(&[("SLURM_MEM_PER_CPU", 1000), ("SLURM_CPUS_ON_NODE", 4)]);
        assert_eq!((job_cores(&by_core), job_memory(&by_core)), (Some(4), Some(4000 << 20)));
        let by_node = of(&[
            ("SLURM_MEM_PER_NODE", 100),
            ("SLURM_CPUS_ON_NODE", 4),
            ("SLURM_CPUS_PER_TASK", 2),
        ]);
        assert_eq!((job_cores(&by_node), job_memory(&by_node)), (Some(2), Some(100 << 20)));
        assert!(cores() > 0 && free_memory() > 0 && memory() >= free_memory());
    }
}
