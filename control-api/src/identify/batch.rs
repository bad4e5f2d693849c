//! Clients that show their id and their secret, many at a time.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use authcache::EntityId;
use authcache::feed::{Answer, Credentials, LinkId, Question, Refusal};

use super::{Identifier, Trouble, identity_of};
use crate::clock::lock;
use crate::feed::UNAVAILABLE;
use crate::pat;
use crate::questions::Asked;
use crate::store::channels::{self, RIGHTS_AT_ONCE};
use crate::store::clients::{self, ClientAuth};

/// A question's link and number, the revision as of which it was answered, and the answer.
pub(crate) type Answered = (LinkId, u64, u64, Answer);

/// The id and the secret of a client, if that is what a question shows.
fn shown(question: &Question) -> Option<(EntityId, &[u8], &Credentials)> {
    let Question::Identify(credentials) = question else {
        return None;
    };
    let id = EntityId::from_text(credentials.username.as_deref()?)?;
    let secret = credentials.password.as_deref()?;
    (!pat::is_pat_like(secret)).then_some((id, secret, credentials))
}

impl Identifier {
    /// Whether a question may be one that [`answer_clients`](Self::answer_clients) answers.
    pub(crate) fn is_of_client(question: &Question) -> bool {
        shown(question).is_some()
    }

    /// Answers whoever is a client with the right secret, as of one revision and with a few
    /// statements for all of them, and gives the others back. An unknown id and a wrong secret have
    /// cost the same by then, and go the same way.
    ///
    /// `tell` is called as soon as a part of the answers is there.
    pub(crate) async fn answer_clients(
        &self,
        asked: Vec<Asked>,
        mut tell: impl FnMut(Vec<Answered>),
    ) -> Vec<Asked> {
        let now_ms = self.0.clock.now_ms();
        let (mut alone, mut open): (Vec<Asked>, Vec<Asked>) = {
            let mut throttle = lock(&self.0.throttle);
            asked.into_iter().partition(|asked| {
                shown(&asked.question).is_none_or(|(_, _, credentials)| {
                    let login = credentials.username.as_deref().unwrap_or_default();
                    throttle.is_blocked(credentials.peer, login, now_ms)
                })
            })
        };
        let counts = &self.0.counts;
        let mut count_and_tell = |answered: Vec<Answered>| {
            counts
                .questions
                .fetch_add(answered.len() as u64, Ordering::Relaxed);
            tell(answered);
        };
        let done = self
            .admit_clients(&mut open, &mut alone, &mut count_and_tell)
            .await;
        if let Err(error) = done {
            tracing::error!(%error, "questions of a broker could not be answered");
            counts
                .unavailable
                .fetch_add(open.len() as u64, Ordering::Relaxed);
            let refused = |asked: Asked| (asked.link, asked.number, 0, UNAVAILABLE);
            count_and_tell(open.into_iter().map(refused).collect());
        }
        alone
    }

    /// Answers what is in `open`, or moves it to `alone`; what an error leaves there has no answer.
    async fn admit_clients(
        &self,
        open: &mut Vec<Asked>,
        alone: &mut Vec<Asked>,
        tell: &mut impl FnMut(Vec<Answered>),
    ) -> Result<(), Trouble> {
        let ids = open.iter().filter_map(|asked| shown(&asked.question));
        let ids = in_order(ids.map(|(id, ..)| id));
        if ids.is_empty() {
            return Ok(());
        }
        let (mut tx, revision) = self.0.store.read_at().await?;
        let found = clients::clients_auth(&mut tx, &ids).await?;
        let known: HashMap<EntityId, ClientAuth> = found
            .into_iter()
            .map(|client| (client.id, client))
            .collect();
        let mut refused = Vec::new();
        let mut admitted: HashMap<EntityId, Vec<Asked>> = HashMap::new();
        let found: Vec<(Asked, Option<&ClientAuth>)> = std::mem::take(open)
            .into_iter()
            .map(|asked| {
                let client = self.whose(&asked.question, &known);
                (asked, client)
            })
            .collect();
        // Whoever guesses gains nothing by many guesses at a time: a right one among wrong ones from
        // the same address is answered alone like those, behind the failures that count.
        let wrong = found.iter().filter(|(_, client)| client.is_none());
        let guessed: HashSet<_> = wrong
            .filter_map(|(asked, _)| peer_and_id(&asked.question))
            .collect();
        for (asked, client) in found {
            let is_guess =
                peer_and_id(&asked.question).is_none_or(|named| guessed.contains(&named));
            match client.filter(|_| !is_guess) {
                None => alone.push(asked),
                Some(client) if client.is_live() => {
                    admitted.entry(client.id).or_default().push(asked);
                }
                Some(_) => {
                    let answer = Answer::Refused(Refusal::NotAuthorized);
                    refused.push((asked.link, asked.number, 0, answer));
                }
            }
        }
        tell(refused);
        let mut left = in_order(admitted.keys().copied());
        while !left.is_empty() {
            let part = channels::rights_of_first(&mut tx, &left, RIGHTS_AT_ONCE).await;
            let (rights, rest) = match part {
                Ok(part) => part,
                Err(error) => {
                    open.extend(admitted.into_values().flatten());
                    return Err(error.into());
                }
            };
            let mut answered = Vec::new();
            for (id, rights) in rights {
                let (Some(client), Some(asked)) = (known.get(&id), admitted.remove(&id)) else {
                    continue;
                };
                let identity = identity_of(client, rights);
                answered.extend(asked.into_iter().map(|asked| {
                    let answer = Answer::Identity(identity.clone(), None);
                    (asked.link, asked.number, revision, answer)
                }));
            }
            tell(answered);
            left = rest;
        }
        Ok(())
    }

    /// The client that a question shows, if its secret is right. Each costs one digest.
    fn whose<'a>(
        &self,
        question: &Question,
        known: &'a HashMap<EntityId, ClientAuth>,
    ) -> Option<&'a ClientAuth> {
        let (id, secret, _) = shown(question)?;
        let client = known.get(&id);
        let domain = client.map_or(id, |client| client.domain);
        let digest = self.0.pepper.device_secret(domain, secret);
        let stored = client.and_then(|client| client.secret_digest.as_deref());
        let right = digest.matches(stored.unwrap_or(&[0; 32]));
        client.filter(|client| right && client.secret_digest.is_some())
    }
}

/// Where a question comes from, and the client that it names.
fn peer_and_id(question: &Question) -> Option<(Option<IpAddr>, EntityId)> {
    shown(question).map(|(id, _, credentials)| (credentials.peer, id))
}

/// Ids in order, each once.
fn in_order(ids: impl Iterator<Item = EntityId>) -> Vec<EntityId> {
    let mut ids: Vec<EntityId> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
