use std::fs;

/// Of the process, in seconds, its own and the system's for it.
pub fn cpu_seconds() -> f64 {
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut used) } != 0 {
        return 0.0;
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

/// What the process held at one moment, in bytes.
pub struct Memory {
    before: u64,
}

impl Memory {
    /// Forgets the peak so far: of starting up, and of making entries.
    pub fn start() -> Memory {
        let _ = fs::write("/proc/self/clear_refs", "5");
        Memory {
            before: status_bytes("VmRSS:"),
        }
    }

    pub fn fields(&self) -> String {
        let peak = status_bytes("VmHWM:");
        format!(r#""rss_before": {}, "rss_peak": {peak}"#, self.before)
    }
}

fn status_bytes(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}
