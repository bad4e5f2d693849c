//! Heads of lists by channel: an array while the shard has subscribers on many of the channels,
//! else a map.
//!
//! The array costs 16 bytes per channel of the broker, the map 24 to 48 per channel of the shard.
//! So the array is taken when at least an eighth of the indexes are in use here, and given up
//! below a sixteenth; with dozens of shards nearly all heads of arrays would be empty.

use std::collections::HashMap;

use authcache::ChannelIndex;
use foldhash::fast::FixedState;

use crate::lists::Head;

/// Below this a map is always small enough.
const ARRAY_MIN: usize = 1024;

/// A piece of the array, so that growth neither copies nor doubles it. Absent until it is used.
type Chunk = Option<Box<[Head]>>;
const CHUNK: usize = 256;

pub(crate) struct Heads {
    form: Form,
    /// Heads in use.
    count: usize,
    /// Highest index ever used, and one.
    span: usize,
}

enum Form {
    Map(HashMap<ChannelIndex, Head, FixedState>),
    Array(Vec<Chunk>),
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            form: Form::Map(HashMap::default()),
            count: 0,
            span: 0,
        }
    }
}

impl Heads {
    #[inline]
    pub(crate) fn get(&self, channel: ChannelIndex) -> Option<&Head> {
        match &self.form {
            Form::Map(map) => map.get(&channel),
            Form::Array(array) => {
                let chunk = array.get(channel.index() / CHUNK)?.as_ref()?;
                Some(&chunk[channel.index() % CHUNK]).filter(|head| !head.is_empty())
            }
        }
    }

    /// Stores a head that is not empty.
    pub(crate) fn put(&mut self, channel: ChannelIndex, head: Head) {
        self.span = self.span.max(channel.index() + 1);
        let new = match &mut self.form {
            Form::Map(map) => map.insert(channel, head).is_none(),
            Form::Array(array) => std::mem::replace(place(array, channel), head).is_empty(),
        };
        if new {
            self.count += 1;
            self.choose_form();
        }
    }

    pub(crate) fn remove(&mut self, channel: ChannelIndex) {
        let removed = match &mut self.form {
            Form::Map(map) => map.remove(&channel).is_some(),
            Form::Array(array) => !std::mem::take(place(array, channel)).is_empty(),
        };
        if removed {
            self.count -= 1;
            self.choose_form();
        }
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIndex> {
        let (map, array) = match &self.form {
            Form::Map(map) => (Some(map.keys().copied()), None),
            Form::Array(array) => (None, Some(heads(array).map(|(channel, _)| channel))),
        };
        map.into_iter().flatten().chain(array.into_iter().flatten())
    }

    pub(crate) fn bytes(&self) -> usize {
        match &self.form {
            Form::Map(map) => map.capacity() * (size_of::<(ChannelIndex, Head)>() + 1),
            Form::Array(array) => {
                let chunks = array.iter().flatten().count();
                chunks * CHUNK * size_of::<Head>() + array.capacity() * size_of::<Chunk>()
            }
        }
    }

    fn choose_form(&mut self) {
        match &mut self.form {
            Form::Map(map) if self.count >= ARRAY_MIN && self.count * 8 >= self.span => {
                let mut array = Vec::new();
                for (channel, head) in map.drain() {
                    *place(&mut array, channel) = head;
                }
                self.form = Form::Array(array);
            }
            Form::Array(array) if self.count < ARRAY_MIN / 2 || self.count * 16 < self.span => {
                let map = heads(array)
                    .map(|(channel, head)| (channel, *head))
                    .collect();
                self.form = Form::Map(map);
            }
            Form::Map(_) | Form::Array(_) => {}
        }
    }
}

/// Where the head of a channel is in an array, made if need be.
fn place(array: &mut Vec<Chunk>, channel: ChannelIndex) -> &mut Head {
    let chunk = channel.index() / CHUNK;
    if array.len() <= chunk {
        array.resize_with(chunk + 1, || None);
    }
    let chunk = array[chunk].get_or_insert_with(|| vec![Head::default(); CHUNK].into());
    &mut chunk[channel.index() % CHUNK]
}

/// Heads in use of an array.
fn heads(array: &[Chunk]) -> impl Iterator<Item = (ChannelIndex, &Head)> {
    array.iter().enumerate().flat_map(|(chunk, heads)| {
        let heads = heads
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, head)| !head.is_empty());
        heads.map(move |(at, head)| (ChannelIndex::new((chunk * CHUNK + at) as u32), head))
    })
}
