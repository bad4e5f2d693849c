//! The Turnpike binary: reads what it is told, and composes broker and control.
//!
//! It holds no logic of its own. `cli` and `config` say what is wanted, `serve`, `provision` and `loadtest` do it,
//! `runtime` is the only place that starts threads.

#![forbid(unsafe_code)]

mod banner;
mod cli;
mod config;
mod explain;
mod feed;
mod loadtest;
mod log;
mod provision;
mod runtime;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, ConfigWhat};
use config::Faults;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for what is wrong on the command line or in the configuration; clap's own.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => runtime::run(serve::run(cli.serve)),
        Some(Command::Serve(serve)) => runtime::run(serve::run(serve)),
        Some(Command::Provision(provision)) => runtime::run(provision::run(provision)),
        Some(Command::Explain(explain)) => runtime::run(explain::run(explain)),
        Some(Command::Loadtest(arguments)) => crate::loadtest::run(*arguments),
        Some(Command::Config(command)) => configuration(command.what),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Faults>() => {
            eprintln!("{error}");
            ExitCode::from(USAGE)
        }
        Err(error) => {
            eprintln!("turnpike: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn configuration(what: ConfigWhat) -> anyhow::Result<()> {
    match what {
        ConfigWhat::Check(serve) => {
            serve.config()?;
            println!("the configuration is valid");
        }
        ConfigWhat::Show(serve) => {
            let (config, raw) = serve.config()?;
            print!("{}", config.show(&raw));
        }
    }
    Ok(())
}
