//! CPU time and memory, of this process and of the broker.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::error::Error;

/// CPU time that this process has used.
pub(crate) fn own_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// What the kernel says about another process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Usage {
    /// CPU time in user space, all threads.
    pub(crate) user: Duration,
    /// CPU time in the kernel, all threads.
    pub(crate) system: Duration,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// # Errors
    /// There is no such process, or it may not be looked at.
    pub(crate) fn of(pid: u32) -> Result<Usage, Error> {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let stat = read("stat").map_err(|_| Error::Process(pid))?;
        let status = read("status").map_err(|_| Error::Process(pid))?;
        let (user, system) = cpu(&stat).ok_or(Error::Process(pid))?;
        let rss_bytes = rss(&status).ok_or(Error::Process(pid))?;
        Ok(Usage {
            user,
            system,
            rss_bytes,
        })
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted from behind the name, which may contain anything.
fn cpu(stat: &str) -> Option<(Duration, Duration)> {
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut time = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_micros(ticks * 1_000_000 / ticks_per_s))
    };
    Some((time()?, time()?))
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Where and when a result came about: no figure stands without it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Seconds since 1970 at the end of the run.
    pub unix_s: u64,
    /// Name of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// The command line, without what follows a flag that names a secret.
    pub command: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Machine {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = processors.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            unix_s: now.map_or(0, |now| now.as_secs()),
            processor: name.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: kernel.trim().to_owned(),
            command: command(std::env::args()),
        }
    }
}

/// The command as it can be given elsewhere: without the program's folder and without secrets.
fn command(mut arguments: impl Iterator<Item = String>) -> String {
    let mut secret = false;
    let program = arguments.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let mut words = vec![program.to_owned()];
    for word in arguments {
        if std::mem::take(&mut secret) {
            words.push("...".to_owned());
            continue;
        }
        let name = word.split('=').next().unwrap_or_default();
        let hidden = matches!(name, "--password" | "-P");
        secret = hidden && name.len() == word.len();
        words.push(if hidden && !secret {
            format!("{name}=...")
        } else {
            word
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_without_passwords() {
        let words = [
            "/opt/x",
            "--password",
            "s",
            "-P",
            "s",
            "--password=s",
            "--qos",
            "1",
        ];
        let told = command(words.into_iter().map(str::to_owned));
        assert_eq!(told, "x --password ... -P ... --password=... --qos 1");
    }

    #[test]
    fn usage_is_read_from_a_process_with_an_awkward_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        let (user, system) = cpu(stat).unwrap();
        assert_eq!(user, system * 5);
        assert_eq!(rss("Name: x\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert!(Usage::of(std::process::id()).unwrap().rss_bytes > 0);
        assert!(matches!(Usage::of(u32::MAX), Err(Error::Process(u32::MAX))));
    }
}
