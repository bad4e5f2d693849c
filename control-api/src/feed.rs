//! Drives the leader: pipes of brokers, their questions, and who waits for a revision to settle.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use authcache::feed::{Activity, Answer, Leader, LeaderEvent, LeaseTerms, LinkId, Refusal};
use authcache::{Change, EntityId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, watch};

use crate::clock::{Clock, lock};
use crate::identify::{Answered, Identifier};
use crate::model::Time;
use crate::questions::{Asked, Batches, Questions};
use crate::snapshot;
use crate::store::{Store, StoreError, TRUST_MS};

/// Questions that are answered alone at a time; the others wait in order.
const ANSWERING: usize = 64;
/// Reports of brokers that are written down or wait for it; what comes meanwhile is lost.
const RECORDING: usize = 16;
/// Clients of which one transaction notes what they did: some ten milliseconds, for which a revocation
/// may have to wait.
const RECORDED_AT_ONCE: usize = 1_000;
/// Bytes read from a pipe at a time.
const READ_BYTES: usize = 64 * 1024;

/// The leader and everything that waits for it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    settled: watch::Sender<u64>,
    questions: Questions,
    answering: Semaphore,
    recording: Semaphore,
    /// Held while one of them is written down.
    noting: tokio::sync::Mutex<()>,
    leading: watch::Receiver<bool>,
    store: Store,
    identifier: Identifier,
}

struct State {
    leader: Leader,
    pipes: HashMap<LinkId, Arc<Pipe>>,
}

#[derive(Default)]
struct Pipe {
    writable: Notify,
    overrun: Notify,
}

impl Feed {
    /// A feed that has published everything up to `revision` of a lineage. With `unknown_leases`, brokers may
    /// trust an earlier control for one lease more: nothing settles before. If that control was not
    /// told to stop (`followed`), its pipes may last for the time that it trusts to lead, and leases
    /// count from then.
    pub(crate) fn new(
        lineage: EntityId,
        revision: u64,
        followed: bool,
        unknown_leases: bool,
        clock: Clock,
        store: Store,
        identifier: Identifier,
    ) -> Feed {
        let since_ms = clock.now_ms() + if followed { TRUST_MS } else { 0 };
        let leader = Leader::new(revision, unknown_leases || followed, since_ms).of(lineage);
        Feed(Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                leader,
                pipes: HashMap::new(),
            }),
            settled: watch::Sender::new(revision),
            questions: Questions::default(),
            answering: Semaphore::new(ANSWERING),
            recording: Semaphore::new(RECORDING),
            noting: tokio::sync::Mutex::default(),
            leading: store.leading(),
            store,
            identifier,
        }))
    }

    /// Last revision told to brokers.
    pub(crate) fn revision(&self) -> u64 {
        lock(&self.0.state).leader.revision()
    }

    /// Brokers that hold a lease.
    pub(crate) fn leased(&self) -> usize {
        lock(&self.0.state).leader.leased()
    }

    /// Tells a committed revision to every broker.
    pub(crate) fn publish(&self, revision: u64, changes: Vec<Change>) {
        self.with(|leader, _| leader.publish(revision, changes));
    }

    /// Publishes what the database holds, which is older than what was published.
    pub(crate) async fn begin_anew(&self) {
        let begun = self.0.store.begin_lineage(|lineage, revision| {
            tracing::error!(
                revision,
                "the database was restored from a backup: brokers are told everything afresh, and \
                 every client is identified anew"
            );
            // What was verified was so in another database.
            self.0.identifier.passwords().forget();
            self.with(|leader, now_ms| leader.begin_anew(lineage, revision, now_ms));
            self.0.settled.send_replace(0);
        });
        let begun = async {
            begun.await?;
            self.0.identifier.begin_anew().await
        };
        if let Err(error) = begun.await {
            tracing::error!(%error, "a restored database cannot be used yet");
        }
    }

    /// Returns once every broker has applied `revision`, or its lease has ended. False if the
    /// lineage in which it was committed is over: a backup was restored over it.
    pub(crate) async fn settled(&self, lineage: u64, revision: u64) -> bool {
        let mut settled = self.0.settled.subscribe();
        loop {
            if self.0.store.lineages() != lineage {
                return false;
            }
            let timeout = self.with(|leader, now_ms| {
                leader.tick(now_ms);
                (!leader.settled(revision)).then(|| leader.next_timeout())
            });
            let Some(timeout) = timeout else {
                return self.0.store.lineages() == lineage;
            };
            let ended = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(self.0.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            // Both branches only wake the loop; losing one loses nothing.
            tokio::select! {
                _ = settled.changed() => {}
                () = ended => {}
            }
        }
    }

    /// Serves one broker until its pipe ends.
    ///
    /// # Errors
    /// The pipe failed, or carried what no follower says, or this control does not lead.
    pub(crate) async fn serve<P: AsyncRead + AsyncWrite>(
        &self,
        pipe: P,
        terms: LeaseTerms,
    ) -> io::Result<()> {
        let mut leading = self.0.leading.clone();
        if !*leading.borrow() {
            return Err(io::Error::other("control does not lead"));
        }
        let lost = async {
            // Nobody left to say so means that the lead cannot be lost.
            if leading.wait_for(|leading| !leading).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let (reader, writer) = tokio::io::split(pipe);
        let signals = Arc::new(Pipe::default());
        let link = self.with(|leader, now_ms| leader.connected(terms, now_ms));
        lock(&self.0.state).pipes.insert(link, signals.clone());
        let connected = Connected { feed: self, link };
        // Reading and writing take turns only with each other's readiness: a broker that is slow to
        // read is still listened to.
        let result = tokio::select! {
            result = self.read(link, reader) => result,
            result = self.write(link, writer, &signals) => result,
            () = signals.overrun.notified() => {
                Err(io::Error::other("the broker does not read its feed"))
            }
            () = lost => Err(io::Error::other("control leads no more")),
        };
        drop(connected);
        result
    }

    async fn read<R: AsyncRead>(&self, link: LinkId, reader: R) -> io::Result<()> {
        let mut reader = std::pin::pin!(reader);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            self.with(|leader, now_ms| leader.input(link, &buffer[..count], now_ms))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    async fn write<W: AsyncWrite>(
        &self,
        link: LinkId,
        writer: W,
        signals: &Pipe,
    ) -> io::Result<()> {
        let mut writer = std::pin::pin!(writer);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            lock(&self.0.state).leader.output(link, &mut bytes);
            if bytes.is_empty() {
                signals.writable.notified().await;
                continue;
            }
            writer.write_all(&bytes).await?;
            writer.flush().await?;
        }
    }

    /// Works on the leader, then carries out what it asks for.
    fn with<T>(&self, work: impl FnOnce(&mut Leader, u64) -> T) -> T {
        let mut guard = lock(&self.0.state);
        let state = &mut *guard;
        let result = work(&mut state.leader, self.0.clock.now_ms());
        while let Some(event) = state.leader.poll() {
            if let Some(refused) = self.carry_out(event, &state.pipes) {
                state.leader.answer_all([refused]);
            }
        }
        for link in state.leader.writable() {
            if let Some(pipe) = state.pipes.get(&link) {
                pipe.writable.notify_one();
            }
        }
        result
    }

    /// Carries out what the leader asks for; answers with what it has to be told at once.
    fn carry_out(
        &self,
        event: LeaderEvent,
        pipes: &HashMap<LinkId, Arc<Pipe>>,
    ) -> Option<Answered> {
        match event {
            LeaderEvent::Settled { revision } => {
                self.0.settled.send_replace(revision);
            }
            LeaderEvent::Overrun { link } => {
                if let Some(pipe) = pipes.get(&link) {
                    pipe.overrun.notify_one();
                }
            }
            // Owned by the link they are for: the leader ignores what comes after its end, and both
            // are bounded, by the links and by the questions a link may have open.
            LeaderEvent::Joined {
                link,
                told,
                node,
                incarnation,
                held,
            } => {
                let feed = self.clone();
                tokio::spawn(async move { feed.note_start(node, incarnation).await });
                let feed = self.clone();
                tokio::spawn(async move { feed.join(link, told, held).await });
            }
            LeaderEvent::Active {
                node,
                incarnation,
                clients,
            } => {
                let feed = self.clone();
                tokio::spawn(async move { feed.note_activity(node, incarnation, clients).await });
            }
            LeaderEvent::Asked {
                link,
                number,
                question,
            } => {
                return self.ask(Asked {
                    link,
                    number,
                    question,
                });
            }
        }
        None
    }

    /// Has a question answered; if too many are open already, this is the answer.
    fn ask(&self, asked: Asked) -> Option<Answered> {
        if !self.0.questions.open() {
            self.0.identifier.note_unanswered();
            return Some((asked.link, asked.number, 0, UNAVAILABLE));
        }
        if !Identifier::is_of_client(&asked.question) {
            self.answer_alone(asked);
        } else if self.0.questions.wait(asked) {
            let feed = self.clone();
            tokio::spawn(async move { feed.answer_batches().await });
        }
        None
    }

    async fn answer_batches(&self) {
        let mut batches = Batches::of(&self.0.questions);
        while let Some(batch) = batches.next() {
            let tell = |answered| self.answered(answered);
            for asked in self.0.identifier.answer_clients(batch, tell).await {
                self.answer_alone(asked);
            }
        }
    }

    fn answer_alone(&self, asked: Asked) {
        let feed = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = feed.0.answering.acquire().await else {
                return;
            };
            let (revision, answer) = feed.0.identifier.answer(&asked.question).await;
            feed.answered(vec![(asked.link, asked.number, revision, answer)]);
        });
    }

    fn answered(&self, answered: Vec<Answered>) {
        self.0.questions.close(answered.len());
        self.with(|leader, _| leader.answer_all(answered));
    }

    async fn note_start(&self, node: EntityId, incarnation: u64) {
        let noted = async {
            let mut write = self.0.store.write().await?;
            write.broker_began(node, incarnation).await?;
            write.commit().await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the start of a broker could not be noted");
        }
    }

    /// Writes down what clients did, unless as much is being written already.
    async fn note_activity(&self, node: EntityId, incarnation: u64, clients: Vec<Activity>) {
        let Ok(_permit) = self.0.recording.try_acquire() else {
            let lost = &self.0.identifier.counts().reports_lost;
            lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the database is too slow to note what clients do");
            return;
        };
        // One report after the other, or an older one would overtake parts of a newer.
        let _turn = self.0.noting.lock().await;
        let noted = async {
            // Others who write come in between.
            for part in clients.chunks(RECORDED_AT_ONCE) {
                let mut write = self.0.store.write().await?;
                write
                    .add_activity(node, incarnation, part, Time::now())
                    .await?;
                write.commit().await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "what clients did could not be noted");
        }
    }

    async fn join(&self, link: LinkId, told: (Option<EntityId>, u64), held: Vec<EntityId>) {
        match snapshot::read(&self.0.store, told, &held).await {
            Ok(snapshot) => {
                if snapshot.afresh {
                    tracing::warn!(
                        told = told.1,
                        revision = snapshot.revision,
                        "a broker was told what this database never committed: it begins anew"
                    );
                }
                self.with(|leader, _| leader.snapshot(link, snapshot));
            }
            Err(error) => {
                tracing::error!(%error, "no snapshot for a broker: it is disconnected to try again");
                if let Some(pipe) = lock(&self.0.state).pipes.get(&link) {
                    pipe.overrun.notify_one();
                }
            }
        }
    }
}

/// Takes the link out of the leader whatever ends the pipe, cancellation included.
struct Connected<'a> {
    feed: &'a Feed,
    link: LinkId,
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        lock(&self.feed.0.state).pipes.remove(&self.link);
        self.feed
            .with(|leader, now_ms| leader.disconnected(self.link, now_ms));
    }
}

/// The answer when the database or the hashing thread gave none.
pub(crate) const UNAVAILABLE: Answer = Answer::Refused(Refusal::Unavailable);
