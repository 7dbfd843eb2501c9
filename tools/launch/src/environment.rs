//! One process per rank: the environment variables that torchrun, mpirun, mpiexec and srun set.

use codelsi_engine::{Error, Result};

/// Rank of this process in a launched run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRank {
    pub rank: usize,
    pub world: usize,
    /// Rank among the processes of this machine, of which there are `local_world`.
    pub local_rank: usize,
    pub local_world: usize,
    /// Host of rank 0, with which the others meet.
    pub address: String,
    pub port: u16,
}

/// A launcher by the variables that it sets in each process.
struct Launcher {
    rank: &'static str,
    world: &'static str,
    local_rank: &'static str,
    local_world: &'static str,
    /// True if it also sets them where it starts one process, which is no rank then.
    for_one_too: bool,
}

/// The launchers, the inner ones first: one that is started by another overrides it.
const LAUNCHERS: [Launcher; 4] = [
    // torchrun
    Launcher {
        rank: "RANK",
        world: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_world: "LOCAL_WORLD_SIZE",
        for_one_too: false,
    },
    // Open MPI's mpirun
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_world: "OMPI_COMM_WORLD_LOCAL_SIZE",
        for_one_too: false,
    },
    // mpiexec of MPICH and Intel MPI
    Launcher {
        rank: "PMI_RANK",
        world: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_world: "MPI_LOCALNRANKS",
        for_one_too: true,
    },
    // srun; SLURM_NTASKS stands in a batch script too, where one process runs
    Launcher {
        rank: "SLURM_PROCID",
        world: "SLURM_STEP_NUM_TASKS",
        local_rank: "SLURM_LOCALID",
        local_world: "",
        for_one_too: true,
    },
];

/// Reads the variables of the launcher that started this process, and `MASTER_ADDR` and `MASTER_PORT`, where its ranks
/// meet. Returns `None` without a launcher.
///
/// # Errors
/// When some are missing, are no numbers, or contradict each other.
pub fn process_rank(env: impl Fn(&str) -> Option<String>) -> Result<Option<ProcessRank>> {
    let started: Vec<&Launcher> = LAUNCHERS.iter().filter(|launcher| launcher.started(&env)).collect();
    let Some(launcher) = started.first() else { return Ok(None) };
    launcher.check_complete(&env)?;
    let (rank, world) = launcher.place(&env)?;
    for outer in &started[1..] {
        launcher.check_inside((rank, world), outer, &env)?;
    }
    let address = env("MASTER_ADDR").unwrap_or_default().trim().to_owned();
    if address.is_empty() {
        return Err(contradiction("MASTER_ADDR is empty".into()));
    }
    // Torchrun's own store then listens on MASTER_PORT itself.
    let store = env("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True");
    let port = number(&env, "MASTER_PORT")?.saturating_add(usize::from(store));
    let port = u16::try_from(port).ok().filter(|&port| port > 0);
    let port = port
        .ok_or_else(|| contradiction(format!("MASTER_PORT is {}", env("MASTER_PORT").unwrap_or_default())))?;
    let (local_rank, local_world) = launcher.local_place((rank, world), &address, &env)?;
    Ok(Some(ProcessRank { rank, world, local_rank, local_world, address, port }))
}

impl Launcher {
    /// Returns whether this launcher started the process as a rank.
    fn started(&self, env: &impl Fn(&str) -> Option<String>) -> bool {
        let alone = env(self.world).is_none_or(|world| world.trim() == "1" || world.trim() == "0");
        match self.for_one_too {
            true => !alone,
            false => [self.rank, self.world, self.local_rank].iter().any(|name| env(name).is_some()),
        }
    }

    /// Checks that all variables are there.
    fn check_complete(&self, env: &impl Fn(&str) -> Option<String>) -> Result<()> {
        let own = if self.for_one_too {
            vec![self.rank, self.world]
        } else {
            vec![self.rank, self.world, self.local_rank]
        };
        let missing = |names: &[&'static str]| -> Vec<&'static str> {
            names.iter().copied().filter(|name| env(name).is_none()).collect()
        };
        let (own, meeting) = (missing(&own), missing(&["MASTER_ADDR", "MASTER_PORT"]));
        if self.for_one_too && own.is_empty() && !meeting.is_empty() {
            let n = env(self.world).unwrap_or_default();
            return Err(Error::new(format!(
                "{}={} says that several processes were started; for them to meet, set MASTER_ADDR to the host of rank 0 and \
                 MASTER_PORT to a free port there, such as 29500 (or unset {} for a process alone)",
                self.world, n, self.world
            )));
        }
        let all = [own, meeting].concat();
        if all.is_empty() { Ok(()) } else { Err(self.incomplete(&all.join(", "))) }
    }

    /// The rank of this process and the number of ranks.
    fn place(&self, env: &impl Fn(&str) -> Option<String>) -> Result<(usize, usize)> {
        let (rank, world) = (number(env, self.rank)?, number(env, self.world)?);
        match rank < world {
            true => Ok((rank, world)),
            false => Err(contradiction(format!("{} is {rank} and {} is {world}", self.rank, self.world))),
        }
    }

    /// The rank among the processes of this machine, and their number. On one machine it is the rank, if nothing says it.
    fn local_place(
        &self,
        (rank, world): (usize, usize),
        address: &str,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<(usize, usize)> {
        let one_machine = address == "localhost" || address == "::1" || address.starts_with("127.");
        let local_rank = match env(self.local_rank) {
            Some(_) => number(env, self.local_rank)?,
            None if one_machine && self.for_one_too => rank,
            None => return Err(self.incomplete(self.local_rank)),
        };
        let local_world = match env(self.local_world) {
            Some(_) => number(env, self.local_world)?,
            None if one_machine => world,
            None => local_rank.saturating_add(1),
        };
        let named = |name: &str| {
            if name.is_empty() { "the number on this machine".to_owned() } else { name.to_owned() }
        };
        let wrong = [
            (local_rank >= local_world, (self.local_rank, local_rank, self.local_world, local_world)),
            (local_world > world, (self.local_world, local_world, self.world, world)),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, (a, is, b, limit))) => {
                Err(contradiction(format!("{} is {is} and {} is {limit}", named(a), named(b))))
            }
            None => Ok((local_rank, local_world)),
        }
    }

    /// Checks that this launcher may run in the processes of `outer`: it has as many processes at least.
    fn check_inside(
        &self,
        (rank, world): (usize, usize),
        outer: &Launcher,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let (outer_rank, outer_world) = outer.place(env)?;
        // An elastic torchrun numbers its nodes by itself.
        let renumbers = env("TORCHELASTIC_RUN_ID").is_some();
        if world < outer_world || (world == outer_world && rank != outer_rank && !renumbers) {
            return Err(contradiction(format!(
                "{} and {} are {rank} and {world}, but {} and {} are {outer_rank} and {outer_world}; unset those of one",
                self.rank, self.world, outer.rank, outer.world
            )));
        }
        Ok(())
    }

    fn incomplete(&self, missing: &str) -> Error {
        let needed = [self.rank, self.world, self.local_rank, "MASTER_ADDR", "MASTER_PORT"];
        Error::new(format!(
            "a launcher's environment is incomplete: {missing} missing; set all of {}, or none of them",
            needed.join(", ")
        ))
    }
}

fn number(env: &impl Fn(&str) -> Option<String>, name: &str) -> Result<usize> {
    let text = env(name).unwrap_or_default();
    text.trim().parse().map_err(|_| Error::new(format!("{name} is `{text}`, which is no number")))
}

fn contradiction(which: String) -> Error {
    Error::new(format!("a launcher's environment contradicts itself: {which}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<ProcessRank>> {
        process_rank(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()))
    }

    const TORCHRUN: [(&str, &str); 5] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "node0"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn torchrun_and_open_mpi_are_understood() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&TORCHRUN[3..]).unwrap(), None, "an address alone launches nothing");
        let member = read(&TORCHRUN).unwrap().unwrap();
        let expected = ProcessRank {
            rank: 3,
            world: 4,
            local_rank: 1,
            local_world: 2,
            address: "node0".into(),
            port: 29500,
        };
        assert_eq!(member, expected);
        let store = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("LOCAL_WORLD_SIZE", "4")]];
        let member = read(&store.concat()).unwrap().unwrap();
        assert_eq!((member.port, member.local_world), (29501, 4));
        let mpi = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ];
        assert_eq!(read(&[&mpi, &TORCHRUN[3..]].concat()).unwrap().unwrap(), expected);
    }

    const MEETING: [(&str, &str); 2] = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];

    #[test]
    fn srun_mpich_and_intel_mpi_start_ranks() {
        let srun = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("SLURM_STEP_NUM_TASKS", "2")];
        let pmi = [("PMI_RANK", "1"), ("PMI_SIZE", "2")];
        for started in [&srun[..], &pmi] {
            let member = read(&[started, &MEETING].concat()).unwrap().unwrap();
            assert_eq!((member.rank, member.world, member.local_rank, member.local_world), (1, 2, 1, 2));
            let message = read(started).unwrap_err().to_string();
            assert!(message.contains("set MASTER_ADDR to the host of rank 0 and MASTER_PORT"), "{message}");
        }
        let local = [("SLURM_LOCALID", "0"), ("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")];
        let member = read(&[&srun[..], &local].concat()).unwrap().unwrap();
        assert_eq!((member.rank, member.local_rank, member.local_world), (1, 0, 1));
        let local = [
            ("MPI_LOCALRANKID", "0"),
            ("MPI_LOCALNRANKS", "1"),
            ("MASTER_ADDR", "node0"),
            ("MASTER_PORT", "1"),
        ];
        assert_eq!(read(&[&pmi[..], &local].concat()).unwrap().unwrap().local_rank, 0);
        let unknown = read(&[&pmi[..], &local[2..]].concat()).unwrap_err().to_string();
        assert!(unknown.contains("incomplete: MPI_LOCALRANKID missing"), "{unknown}");
    }

    #[test]
    fn a_batch_script_and_a_process_alone_are_no_ranks() {
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")]).unwrap(), None);
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]).unwrap(), None);
        assert_eq!(read(&[("PMI_RANK", "0"), ("PMI_SIZE", "1")]).unwrap(), None);
    }

    #[test]
    fn a_launcher_inside_of_another_overrides_it_unless_they_conflict() {
        let torch = |rank, world| [("RANK", rank), ("WORLD_SIZE", world), ("LOCAL_RANK", "0")];
        let srun = |rank, tasks| [("SLURM_PROCID", rank), ("SLURM_STEP_NUM_TASKS", tasks)];
        let both = |a: [(&'static str, &'static str); 3], b: [(&'static str, &'static str); 2]| {
            read(&[&a[..], &b, &MEETING].concat())
        };
        assert_eq!(
            both(torch("3", "4"), srun("1", "2")).unwrap().unwrap().rank,
            3,
            "torchrun on each of two nodes"
        );
        assert_eq!(both(torch("1", "2"), srun("1", "2")).unwrap().unwrap().rank, 1);
        let alone = both(torch("0", "1"), srun("1", "2")).unwrap_err().to_string();
        assert!(alone.contains("RANK and WORLD_SIZE are 0 and 1, but SLURM_PROCID and"), "{alone}");
        assert!(
            both(torch("0", "2"), srun("1", "2")).unwrap_err().to_string().contains("contradicts itself")
        );
        let elastic = [&torch("0", "2")[..], &srun("1", "2"), &MEETING, &[("TORCHELASTIC_RUN_ID", "7")]];
        assert_eq!(read(&elastic.concat()).unwrap().unwrap().rank, 0);
    }

    #[test]
    fn incomplete_and_contradictory_environments_are_refused_by_name() {
        let refuse = |variables: &[(&str, &str)]| read(variables).unwrap_err().to_string();
        for missing in 0..TORCHRUN.len() {
            let mut rest = TORCHRUN.to_vec();
            let (name, _) = rest.remove(missing);
            let message = refuse(&rest);
            assert!(message.contains(&format!("incomplete: {name} missing; set all of RANK, ")), "{message}");
        }
        let mpi = [
            ("OMPI_COMM_WORLD_RANK", "0"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ];
        assert!(refuse(&mpi).contains("MASTER_ADDR, MASTER_PORT missing"));
        let with = |name: &str, value: &'static str| {
            let rest = TORCHRUN.map(|(n, v)| (n, if n == name { value } else { v }));
            refuse(&rest)
        };
        assert!(with("RANK", "4").contains("contradicts itself: RANK is 4 and WORLD_SIZE is 4"));
        assert!(with("LOCAL_RANK", "4").contains("LOCAL_WORLD_SIZE is 5 and WORLD_SIZE is 4"));
        assert!(with("WORLD_SIZE", "two").contains("WORLD_SIZE is `two`, which is no number"));
        assert!(with("MASTER_PORT", "70000").contains("MASTER_PORT is 70000"));
        assert!(with("MASTER_ADDR", " ").contains("MASTER_ADDR is empty"));
    }
}
