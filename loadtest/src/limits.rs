//! What the system allows, against what many connections need.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::error::Error;
use crate::wire::PER_ADDRESS;

/// Descriptors a process needs besides its connections.
const BESIDE: u64 = 128;

/// Memory of the kernel for one connection with both ends on this machine: two sockets with their
/// files. Measured, with what epoll needs.
const KERNEL_BYTES_PER_CONNECTION: u64 = 8700;

/// Raises this process's own limit on descriptors as far as it may; how many connections it can
/// hold.
///
/// # Errors
/// The system refuses.
pub(crate) fn allow_descriptors(wanted: usize) -> Result<usize, Error> {
    let mut limit = getrlimit(Resource::Nofile);
    let need = wanted as u64 + BESIDE;
    if limit.current.is_some_and(|current| current < need) {
        limit.current = Some(limit.maximum.map_or(need, |most| most.min(need)));
        setrlimit(Resource::Nofile, limit)?;
    }
    let allowed = getrlimit(Resource::Nofile).current;
    Ok(allowed.map_or(usize::MAX, |allowed| {
        allowed.saturating_sub(BESIDE) as usize
    }))
}

/// Connections held by one process, if descriptors allow.
pub(crate) const PER_PROCESS: usize = 18_000;

/// How many connections each of several processes is to hold.
///
/// # Errors
/// The system refuses.
pub(crate) fn per_process() -> Result<usize, Error> {
    let allowed = allow_descriptors(PER_PROCESS + 8)?.saturating_sub(8);
    Ok(PER_PROCESS.min(allowed).max(1))
}

/// An error of making connections, with what stands in the way of them.
pub(crate) fn explained(error: Error, missing: &[String]) -> Error {
    match missing {
        [] => error,
        missing => Error::Plan(format!("{error}\nin the way: {}", missing.join("\n  "))),
    }
}

/// Limits and sysctls that stand in the way of `connections` over loopback, each with what is set
/// and what is needed. Empty if nothing does. `processes` of ours hold them.
pub(crate) fn missing(connections: usize, processes: usize, loopback: bool) -> Vec<String> {
    let mut found = Vec::new();
    let count = connections as u64;
    let ends = if loopback { 2 } else { 1 };
    let limit = getrlimit(Resource::Nofile);
    let each = count.div_ceil(processes.max(1) as u64) + BESIDE;
    if limit.maximum.is_some_and(|most| most < each) {
        found.push(format!(
            "limit nofile (ulimit -Hn) is {}; {each} are needed in each of {processes} processes: \
             raise it, or use more --processes",
            limit.maximum.unwrap_or_default()
        ));
    }
    if let Some(most) = number("fs/file-max").filter(|most| *most < count * ends + 10_000) {
        let need = count * ends + 10_000;
        found.push(format!("sysctl fs.file-max is {most}; {need} is needed"));
    }
    if let Some((low, high)) = range("net/ipv4/ip_local_port_range") {
        let need = count.min(PER_ADDRESS as u64);
        if high.saturating_sub(low) < need {
            found.push(format!(
                "sysctl net.ipv4.ip_local_port_range is {low} to {high}; {need} ports are needed \
                 for each source address"
            ));
        }
    }
    if !loopback && count > PER_ADDRESS as u64 {
        found.push(format!(
            "only over loopback this tool uses a new source address for each {PER_ADDRESS} \
             connections; {count} to another machine need more ports than one address has"
        ));
    }
    if let Some(most) = number("net/core/somaxconn").filter(|most| *most < 1024 && count > 10_000) {
        found.push(format!(
            "sysctl net.core.somaxconn is {most}; 4096 is needed"
        ));
    }
    let need = count * KERNEL_BYTES_PER_CONNECTION / if loopback { 1 } else { 2 };
    if let Some(free) = memory_available().filter(|free| *free < need) {
        found.push(format!(
            "memory available is {} MiB; the kernel needs about {} MiB for the sockets alone",
            free >> 20,
            need >> 20
        ));
    }
    found
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()
}

fn number(name: &str) -> Option<u64> {
    read(name)?.trim().parse().ok()
}

fn range(name: &str) -> Option<(u64, u64)> {
    let text = read(name)?;
    let mut words = text.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn memory_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_connections_need_nothing_and_too_many_are_told_what() {
        assert_eq!(missing(10, 1, true), Vec::<String>::new());
        let told = missing(1 << 40, 1, true).join("\n");
        for word in ["fs.file-max", "memory available"] {
            assert!(told.contains(word), "{told}");
        }
        assert!(
            missing(20_000, 2, false)
                .join("\n")
                .contains("source address")
        );
    }
}
