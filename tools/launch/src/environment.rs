//! One process per rank: the environment variables that torchrun and mpirun set.

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

/// Reads `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`; Open MPI's own names stand in for the first
/// three where `RANK` is absent. Returns `None` without a launcher.
///
/// # Errors
/// When some are missing, are no numbers, or contradict each other.
pub fn process_rank(env: impl Fn(&str) -> Option<String>) -> Result<Option<ProcessRank>> {
    let torch = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];
    let mpi = ["RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"].map(|name| format!("OMPI_COMM_WORLD_{name}"));
    let names = match (env(torch[0]), env(&mpi[0])) {
        (None, Some(_)) => mpi,
        (None, None) if torch[1..3].iter().all(|name| env(name).is_none()) => return Ok(None),
        _ => torch.map(String::from),
    };
    let needed = || names[..3].iter().map(String::as_str).chain(["MASTER_ADDR", "MASTER_PORT"]);
    let missing: Vec<&str> = needed().filter(|name| env(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Error::new(format!(
            "a launcher's environment is incomplete: {} missing; set all of {}, or none of them",
            missing.join(", "),
            needed().collect::<Vec<_>>().join(", ")
        )));
    }
    let text = |name: &str| env(name).unwrap_or_default();
    let number = |name: &str| {
        let wrong = |_| Error::new(format!("{name} is `{}`, which is no number", text(name)));
        text(name).trim().parse::<usize>().map_err(wrong)
    };
    let (rank, world, local_rank) = (number(&names[0])?, number(&names[1])?, number(&names[2])?);
    let local_world = if env(&names[3]).is_some() { number(&names[3])? } else { local_rank + 1 };
    let port = number("MASTER_PORT")?;
    // Torchrun's own store then listens on MASTER_PORT itself.
    let port = port + usize::from(env("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"));
    let contradiction = [
        (rank >= world, format!("{} is {rank} and {} is {world}", names[0], names[1])),
        (
            local_rank >= local_world,
            format!("{} is {local_rank} and {} is {local_world}", names[2], names[3]),
        ),
        (local_world > world, format!("{} is {local_world} and {} is {world}", names[3], names[1])),
        (!(1..=65535).contains(&port), format!("MASTER_PORT is {port}")),
        (text("MASTER_ADDR").trim().is_empty(), "MASTER_ADDR is empty".into()),
    ];
    if let Some((_, which)) = contradiction.into_iter().find(|(wrong, _)| *wrong) {
        return Err(Error::new(format!("a launcher's environment contradicts itself: {which}")));
    }
    let address = text("MASTER_ADDR").trim().to_owned();
    Ok(Some(ProcessRank { rank, world, local_rank, local_world, address, port: port as u16 }))
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
