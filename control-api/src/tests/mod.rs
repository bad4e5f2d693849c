//! Control over a real database in temporary folders, with brokers made of a follower and a task.

mod api;
pub(crate) mod both;
mod feed;
mod identify;
mod lead;
#[allow(unreachable_pub, reason = "the tests of the binary include it too")]
mod postgres;
mod provision;
mod start;
mod web;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authcache::feed::{Activity, Answer, Follower, FollowerEvent, Question};
use authcache::{Change, EntityId, Identity};
use both::config;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::clock::lock;
use crate::{
    Channel, ClientWithSecret, Config, Control, FirstRun, NewChannel, NewClient, NewDomain,
};

/// An installation in a folder that goes with it.
struct Installation {
    control: Control,
    first_run: Option<FirstRun>,
    folder: TempDir,
}

async fn installation() -> Installation {
    installation_with(crate::ApiSettings::default()).await
}

async fn installation_with(api: crate::ApiSettings) -> Installation {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        demo: false,
        api,
        ..config(folder.path().join("data"))
    };
    let (control, first_run) = Control::open(config).await.unwrap();
    Installation {
        control,
        first_run,
        folder,
    }
}

/// An installation with a domain `plant`, a channel `line` and a client.
struct Plant {
    at: Installation,
    channel: Channel,
    client: ClientWithSecret,
}

async fn plant() -> Plant {
    let at = installation().await;
    let provision = at.control.provision();
    let new = NewDomain {
        route: "plant".into(),
        ..NewDomain::default()
    };
    provision.create_domain(new).await.unwrap();
    let new = NewChannel {
        route: Some("line".into()),
        ..NewChannel::default()
    };
    let channel = provision.create_channel("plant", new).await.unwrap();
    let new = NewClient {
        name: "pump".into(),
        ..NewClient::default()
    };
    let client = provision.create_client("plant", new).await.unwrap();
    Plant {
        at,
        channel,
        client,
    }
}

impl Plant {
    fn control(&self) -> &Control {
        &self.at.control
    }

    fn connections(&self, types: &[&str]) -> crate::Connections {
        crate::Connections {
            clients: vec![self.client.client.id.to_string()],
            channels: vec!["line".into()],
            types: types.iter().map(|text| (*text).to_owned()).collect(),
        }
    }
}

/// A broker that applies what it is told at once, or when the test says so.
struct Broker {
    shared: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
    feed: JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    snapshot: Option<(Vec<Change>, Vec<Identity>)>,
    deltas: Vec<(u64, Vec<Change>)>,
    /// By the number of the question.
    answers: VecDeque<(u64, Answer)>,
    asks: Vec<Question>,
    reports: Vec<Vec<Activity>>,
    holds_back: bool,
    revision: u64,
}

impl Broker {
    async fn join(control: &Control, timed: bool) -> Broker {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serving = control.clone();
        let feed = tokio::spawn(async move {
            let _ = if timed {
                serving.serve_remote_feed(theirs).await
            } else {
                serving.serve_feed(theirs).await
            };
        });
        let shared = Arc::new(Mutex::new(Told::default()));
        let task = tokio::spawn(drive(ours, shared.clone()));
        let broker = Broker { shared, task, feed };
        broker.until(|told| told.snapshot.is_some()).await;
        broker
    }

    async fn until(&self, done: impl Fn(&Told) -> bool) {
        let begun = Instant::now();
        while !done(&lock(&self.shared)) {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "the broker waits in vain"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ask(&self, question: Question) -> Answer {
        lock(&self.shared).asks.push(question);
        self.until(|told| !told.answers.is_empty()).await;
        lock(&self.shared).answers.pop_front().unwrap().1
    }

    /// Asks all at once; the answers are in the order of the questions.
    async fn ask_all(&self, questions: Vec<Question>) -> Vec<Answer> {
        let count = questions.len();
        lock(&self.shared).asks.extend(questions);
        self.until(|told| told.answers.len() == count).await;
        let mut answers: Vec<_> = lock(&self.shared).answers.drain(..).collect();
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn hold_back(&self, hold: bool) {
        lock(&self.shared).holds_back = hold;
    }

    fn deltas(&self) -> Vec<(u64, Vec<Change>)> {
        lock(&self.shared).deltas.clone()
    }

    async fn leave(self) {
        self.task.abort();
        let _ = self.feed.await;
    }
}

async fn drive(mut pipe: DuplexStream, shared: Arc<Mutex<Told>>) {
    let begun = Instant::now();
    let now_ms = || u64::try_from(begun.elapsed().as_millis()).unwrap();
    let mut follower = Follower::new(EntityId::from_u128(1), 1);
    follower.connected(vec![], now_ms());
    let mut buffer = vec![0; 1 << 16];
    let mut out = Vec::new();
    let mut applied = 0;
    loop {
        while let Some(event) = follower.poll() {
            let mut told = lock(&shared);
            match event {
                FollowerEvent::Snapshot {
                    revision,
                    changes,
                    identities,
                    ..
                } => {
                    told.snapshot = Some((changes, identities));
                    told.revision = revision;
                }
                FollowerEvent::Delta { revision, changes } => {
                    told.deltas.push((revision, changes));
                    told.revision = revision;
                }
                FollowerEvent::Answer { number, answer } => {
                    told.answers.push_back((number, answer));
                }
                FollowerEvent::Lease { .. } => {}
                FollowerEvent::Gap { .. } => panic!("control leaves no gap"),
            }
        }
        {
            let mut told = lock(&shared);
            for report in told.reports.drain(..) {
                follower.report(report);
            }
            for question in told.asks.drain(..) {
                follower.ask(question);
            }
            if !told.holds_back && applied < told.revision {
                applied = told.revision;
                follower.applied(applied);
            }
            if !told.holds_back {
                follower.tick(now_ms());
            }
        }
        out.clear();
        follower.output(&mut out);
        if pipe.write_all(&out).await.is_err() {
            return;
        }
        let read = tokio::time::timeout(Duration::from_millis(2), pipe.read(&mut buffer)).await;
        match read {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(count)) => follower.input(&buffer[..count]).unwrap(),
            Err(_) => {}
        }
    }
}
