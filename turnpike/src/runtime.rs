//! The second runtime: control API, database and feed. (The broker's shards are threads of their
//! own, started by [`broker::start`].)

use std::future::Future;

use anyhow::Context;

/// Worker threads for everything beside the shards. Control's work is short, and the data path must
/// not compete with it.
const WORKERS: usize = 2;

/// Runs one command to its end.
///
/// # Errors
/// The command failed, or the system gives no threads.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    let result = runtime.block_on(command);
    // A password that is still being hashed must not hold the exit up.
    runtime.shutdown_background();
    result
}
