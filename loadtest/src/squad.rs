//! Workers: several processes that carry out parts of one load at the same time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use crate::bell::Bell;
use crate::error::Error;
use crate::worker::{Command, Done, Order, Told};

/// Running workers. They end when this is dropped.
pub(crate) struct Squad {
    workers: Vec<One>,
    told: Receiver<(usize, Result<Told, String>)>,
    /// Rings when something was told.
    bell: Bell,
}

struct One {
    process: Child,
    input: ChildStdin,
}

/// Between two looks of who waits.
const LOOK: Duration = Duration::from_millis(50);

/// A worker that is silent for so long beyond what its command takes has failed.
const SILENCE_MAX: Duration = Duration::from_secs(120);

impl Squad {
    /// Starts a worker for each order: `program loadtest worker`.
    ///
    /// # Errors
    /// The system starts no process.
    pub(crate) fn start(program: &Path, orders: Vec<Order>) -> Result<Squad, Error> {
        let (tell, told) = channel();
        let bell = Bell::new()?;
        let mut workers = Vec::with_capacity(orders.len());
        for (number, order) in orders.into_iter().enumerate() {
            let mut process = std::process::Command::new(program)
                .args(["loadtest", "worker"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let missing = || Error::Worker {
                number,
                why: "it has no pipe".into(),
            };
            let mut input = process.stdin.take().ok_or_else(missing)?;
            let output = process.stdout.take().ok_or_else(missing)?;
            let (tell, bell) = (tell.clone(), bell.clone());
            std::thread::Builder::new()
                .name("worker".into())
                .spawn(move || {
                    for line in BufReader::new(output).lines() {
                        let told = line.map_err(|error| error.to_string()).and_then(|line| {
                            serde_json::from_str(&line).map_err(|error| error.to_string())
                        });
                        if tell.send((number, told)).is_err() {
                            return;
                        }
                        bell.ring();
                    }
                    // Nobody has to listen any more.
                    let _ = tell.send((number, Err("its process ended".into())));
                    bell.ring();
                })?;
            let mut text = serde_json::to_string(&order).map_err(std::io::Error::from)?;
            text.push('\n');
            input.write_all(text.as_bytes())?;
            workers.push(One { process, input });
        }
        Ok(Squad {
            workers,
            told,
            bell,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Rings when [`Squad::heard`] has something.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Tells each of them a command of its own, and waits for nothing.
    ///
    /// # Errors
    /// A worker is gone.
    pub(crate) fn tell(&mut self, command: impl Fn(usize) -> Command) -> Result<(), Error> {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let mut text = serde_json::to_string(&command(number)).map_err(std::io::Error::from)?;
            text.push('\n');
            let sent = worker.input.write_all(text.as_bytes());
            sent.map_err(|error| failed(number, error.to_string()))?;
        }
        Ok(())
    }

    /// What one of them said while none of them carries out a command that is waited for; `None`
    /// if there is nothing new.
    ///
    /// # Errors
    /// A worker failed.
    pub(crate) fn heard(&self) -> Result<Option<(usize, Told)>, Error> {
        match self.told.try_recv() {
            Ok((number, Ok(Told::Failed(why)) | Err(why))) => Err(failed(number, why)),
            Ok((number, Ok(told))) => Ok(Some((number, told))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(failed(0, "all processes ended".into())),
        }
    }

    /// Has all of them carry out a command, each its own; `watch` is told again and again how many
    /// connections there are. `takes` is how long it takes if all goes well.
    ///
    /// # Errors
    /// A worker failed.
    pub(crate) fn carry_out(
        &mut self,
        command: impl Fn(usize) -> Command,
        takes: Duration,
        watch: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Vec<Done>, Error> {
        self.tell(command)?;
        let mut done: Vec<Option<Done>> = vec![None; self.workers.len()];
        let mut made = vec![0; self.workers.len()];
        let mut heard = Instant::now() + takes;
        while done.iter().any(Option::is_none) {
            match self.told.recv_timeout(LOOK) {
                Ok((number, told)) => {
                    heard = heard.max(Instant::now());
                    match told.map_err(|why| failed(number, why))? {
                        Told::Progress(count) => made[number] = count,
                        // Said before the command was heard; what counts is what is done.
                        Told::Carried(_) => {}
                        Told::Failed(why) => return Err(failed(number, why)),
                        Told::Done(one) => {
                            made[number] = one.made;
                            done[number] = Some(*one);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) if heard.elapsed() > SILENCE_MAX => {
                    let number = done.iter().position(Option::is_none).unwrap_or_default();
                    let why = format!("it was silent for {} s", SILENCE_MAX.as_secs());
                    return Err(failed(number, why));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(failed(0, "all processes ended".into()));
                }
            }
            watch(made.iter().sum())?;
        }
        Ok(done.into_iter().flatten().collect())
    }
}

fn failed(number: usize, why: String) -> Error {
    Error::Worker { number, why }
}

impl Drop for Squad {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // It may have ended by itself.
            let _ = worker.process.kill();
        }
        for worker in &mut self.workers {
            let _ = worker.process.wait();
        }
    }
}
