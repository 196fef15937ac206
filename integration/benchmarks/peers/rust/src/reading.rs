use std::time::Instant;

use raft_proto::eraftpb::Entry;

use crate::options::Given;
use crate::resources::{cpu_seconds, Memory};
use crate::{open, RaftEntry, FIRST_REGION};

/// Of so many entries one is compared: enough to tell another log, too few to be felt.
const DIGEST_EVERY: u64 = 997;
/// A replay asks for so many entries at a time.
const REPLAYED_AT_ONCE: u64 = 1024;

#[derive(Default)]
struct Seen {
    entries: usize,
    bytes: usize,
    digest: crc32fast::Hasher,
}

impl Seen {
    fn take(&mut self, found: &Entry) {
        self.entries += 1;
        self.bytes += found.data.len();
        if found.index % DIGEST_EVERY == 1 {
            self.digest.update(&found.data);
        }
    }

    fn fields(self, seconds: f64, cpu: f64, memory: &str) -> String {
        format!(
            r#""seconds": {seconds}, "cpu": {cpu}, "entries": {}, "bytes": {}, "digest": {}, {memory}"#,
            self.entries,
            self.bytes,
            self.digest.finalize()
        )
    }
}

/// All entries held, as a node does, and looked at afterwards.
pub fn measure_reading(given: &Given) -> Result<String, String> {
    let memory = Memory::start();
    let (cpu, started) = (cpu_seconds(), Instant::now());
    let mut entries = Vec::new();
    fetch(given, u64::MAX, |found| entries.append(found))?;
    let (seconds, cpu, memory) = (
        started.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        memory.fields(),
    );
    let mut seen = Seen::default();
    entries.iter().for_each(|found| seen.take(found));
    Ok(seen.fields(seconds, cpu, &memory))
}

/// Each entry is looked at and let go.
pub fn measure_replay(given: &Given) -> Result<String, String> {
    let memory = Memory::start();
    let (cpu, started) = (cpu_seconds(), Instant::now());
    let mut seen = Seen::default();
    fetch(given, REPLAYED_AT_ONCE, |found| {
        found.drain(..).for_each(|each| seen.take(&each));
    })?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(seen.fields(seconds, cpu_seconds() - cpu, &memory.fields()))
}

fn fetch(given: &Given, at_once: u64, mut take: impl FnMut(&mut Vec<Entry>)) -> Result<(), String> {
    let engine = open(&given.dir)?;
    let region = FIRST_REGION;
    let (Some(first), Some(last)) = (engine.first_index(region), engine.last_index(region)) else {
        return Ok(());
    };
    let mut found = Vec::new();
    let mut begin = first;
    while begin <= last {
        let end = begin.saturating_add(at_once).min(last + 1);
        engine
            .fetch_entries_to::<RaftEntry>(region, begin, end, None, &mut found)
            .map_err(|error| error.to_string())?;
        take(&mut found);
        begin = end;
    }
    Ok(())
}
