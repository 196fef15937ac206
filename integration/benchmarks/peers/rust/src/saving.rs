use std::fs;
use std::time::Instant;

use raft_engine::{Engine, LogBatch};
use raft_proto::eraftpb::Entry;

use crate::options::Given;
use crate::resources::{cpu_seconds, Memory};
use crate::{open, RaftEntry, FIRST_REGION};

const MOST_IN_CHUNK: usize = 65_536;
const MOST_BYTES_IN_CHUNK: usize = 16 << 20;
const DATA_STRIDE: u64 = 4093;

fn entry(index: u64, block: &[u8], size: usize) -> Entry {
    let offset = (index * DATA_STRIDE % (block.len() - size) as u64) as usize;
    let mut made = Entry::default();
    made.set_term(1);
    made.set_index(index);
    made.set_data(block[offset..offset + size].to_vec().into());
    made
}

fn save(engine: &Engine, region: u64, entries: &[Entry], sync: bool) -> Result<(), String> {
    let mut batch = LogBatch::default();
    batch
        .add_entries::<RaftEntry>(region, entries)
        .and_then(|()| engine.write(&mut batch, sync))
        .map(|_| ())
        .map_err(|error| error.to_string())
}

pub fn measure(given: &Given) -> Result<String, String> {
    let block = fs::read(&given.data).map_err(|error| error.to_string())?;
    let engine = open(&given.dir)?;
    if given.threads > 1 {
        return measure_threads(given, &block, &engine);
    }
    let length = MOST_IN_CHUNK.min(MOST_BYTES_IN_CHUNK / given.size);
    let length = given
        .count
        .min(given.batch.max(length / given.batch * given.batch));
    let mut taken = Taken::default();
    let mut memory = None;
    let mut saved = 0;
    while saved < given.count && !taken.stopped {
        let chunk: Vec<Entry> = (saved..given.count.min(saved + length))
            .map(|position| entry(position as u64 + 1, &block, given.size))
            .collect();
        memory.get_or_insert_with(Memory::start);
        let (cpu, started) = (cpu_seconds(), Instant::now());
        let mut before = started;
        for batch in chunk.chunks(given.batch) {
            save(&engine, FIRST_REGION, batch, given.sync)?;
            let now = Instant::now();
            taken.latencies.push((now - before).as_nanos() as u64);
            taken.entries += batch.len();
            before = now;
            if taken.seconds + (now - started).as_secs_f64() > given.seconds {
                taken.stopped = true;
                break;
            }
        }
        taken.seconds += started.elapsed().as_secs_f64();
        taken.cpu += cpu_seconds() - cpu;
        saved += chunk.len();
    }
    Ok(taken.fields(&memory.expect("there is an entry")))
}

/// Each thread saves to a region of its own: entries of one region must come in order.
fn measure_threads(given: &Given, block: &[u8], engine: &Engine) -> Result<String, String> {
    let each = given.count / given.threads;
    let chunk: Vec<Entry> = (1..=each as u64)
        .map(|index| entry(index, block, given.size))
        .collect();
    let memory = Memory::start();
    let (cpu, started) = (cpu_seconds(), Instant::now());
    let save_each = |region: u64| -> Result<Vec<u64>, String> {
        let mut latencies = Vec::with_capacity(each);
        for one in chunk.chunks(1) {
            let before = Instant::now();
            save(engine, region, one, given.sync)?;
            latencies.push(before.elapsed().as_nanos() as u64);
            if started.elapsed().as_secs_f64() > given.seconds {
                break;
            }
        }
        Ok(latencies)
    };
    let mut taken = Taken::default();
    std::thread::scope(|scope| -> Result<(), String> {
        let threads: Vec<_> = (0..given.threads as u64)
            .map(|thread| scope.spawn(move || save_each(FIRST_REGION + thread)))
            .collect();
        for thread in threads {
            taken
                .latencies
                .extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(())
    })?;
    taken.entries = taken.latencies.len();
    taken.stopped = taken.entries < each * given.threads;
    taken.seconds = started.elapsed().as_secs_f64();
    taken.cpu = cpu_seconds() - cpu;
    Ok(taken.fields(&memory))
}

#[derive(Default)]
struct Taken {
    seconds: f64,
    cpu: f64,
    entries: usize,
    latencies: Vec<u64>,
    stopped: bool,
}

impl Taken {
    fn fields(mut self, memory: &Memory) -> String {
        self.latencies.sort_unstable();
        let saves = self.latencies.len();
        let at = |share: f64| {
            let position = (share * saves as f64) as usize;
            self.latencies[position.min(saves - 1)] as f64 / 1e9
        };
        format!(
            r#""seconds": {}, "cpu": {}, "entries": {}, "saves": {saves}, "p50": {}, "p99": {}, "longest": {}, "stopped": {}, {}"#,
            self.seconds,
            self.cpu,
            self.entries,
            at(0.5),
            at(0.99),
            at(1.0),
            self.stopped,
            memory.fields()
        )
    }
}
