//! raft-engine as a peer in raftwal's benchmarks: does what its arguments say, once, and
//! prints what that took as one JSON object.  The arguments and the object are those of
//! every peer, in any language: see ../../protocol.py.

mod options;
mod reading;
mod resources;
mod saving;

use options::{Given, Task};
use raft_engine::{Config, Engine, MessageExt};
use raft_proto::eraftpb::Entry;

/// The region that one thread saves to; with more, each has one of its own.
pub const FIRST_REGION: u64 = 1;

#[derive(Clone)]
pub struct RaftEntry;

impl MessageExt for RaftEntry {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

pub fn open(directory: &str) -> Result<Engine, String> {
    let config = Config {
        dir: format!("{directory}/log"),
        ..Default::default()
    };
    Engine::open(config).map_err(|error| error.to_string())
}

fn main() {
    match answer() {
        Ok(said) => println!("{said}"),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}

fn answer() -> Result<String, String> {
    let given = Given::from_arguments()?;
    let fields = match given.task {
        Task::Save => saving::measure(&given)?,
        Task::Read => reading::measure_reading(&given)?,
        Task::Replay => reading::measure_replay(&given)?,
        Task::Checksum => return Ok(r#"{"cannot": "asked of etcd's program"}"#.to_string()),
    };
    Ok(format!(
        r#"{{{fields}, "versions": {{"raft-engine": "0.4.2"}}}}"#
    ))
}
