//! Heads of lists by channel: an array while the shard has subscribers on many of the channels,
//! else a map.
//!
//! The array costs 16 bytes per channel of the broker, the map 20 to 46 per channel of the shard.
//! So the array is taken when at least an eighth of the indexes are in use here, and given up
//! below a sixteenth; with dozens of shards nearly all heads of arrays would be empty.

use std::collections::HashMap;

use authcache::ChannelIndex;
use foldhash::fast::FixedState;

use crate::lists::Head;

/// Below this a map is always small enough.
const ARRAY_MIN: usize = 1024;

pub(crate) struct Heads {
    form: Form,
    /// Heads in use.
    count: usize,
    /// Highest index ever used, and one.
    span: usize,
}

enum Form {
    Map(HashMap<ChannelIndex, Head, FixedState>),
    Array(Vec<Head>),
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
            Form::Array(array) => array.get(channel.index()).filter(|head| !head.is_empty()),
        }
    }

    /// Stores a head that is not empty.
    pub(crate) fn put(&mut self, channel: ChannelIndex, head: Head) {
        self.span = self.span.max(channel.index() + 1);
        let new = match &mut self.form {
            Form::Map(map) => map.insert(channel, head).is_none(),
            Form::Array(array) => {
                if array.len() <= channel.index() {
                    array.resize(self.span, Head::default());
                }
                std::mem::replace(&mut array[channel.index()], head).is_empty()
            }
        };
        self.count += usize::from(new);
        if new {
            self.choose_form();
        }
    }

    pub(crate) fn remove(&mut self, channel: ChannelIndex) {
        let removed = match &mut self.form {
            Form::Map(map) => map.remove(&channel).is_some(),
            Form::Array(array) => array
                .get_mut(channel.index())
                .is_some_and(|head| !std::mem::take(head).is_empty()),
        };
        if removed {
            self.count -= 1;
            self.choose_form();
        }
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIndex> {
        let (map, array) = match &self.form {
            Form::Map(map) => (Some(map.keys().copied()), None),
            Form::Array(array) => (None, Some(array)),
        };
        let array = array.into_iter().flat_map(|array| {
            array
                .iter()
                .enumerate()
                .filter(|(_, head)| !head.is_empty())
                .map(|(index, _)| ChannelIndex::new(index as u32))
        });
        map.into_iter().flatten().chain(array)
    }

    pub(crate) fn bytes(&self) -> usize {
        match &self.form {
            Form::Map(map) => map.capacity() * (size_of::<(ChannelIndex, Head)>() + 1),
            Form::Array(array) => array.capacity() * size_of::<Head>(),
        }
    }

    fn choose_form(&mut self) {
        match &mut self.form {
            Form::Map(map) if self.count >= ARRAY_MIN && self.count * 8 >= self.span => {
                let mut array = vec![Head::default(); self.span];
                for (channel, head) in map.drain() {
                    array[channel.index()] = head;
                }
                self.form = Form::Array(array);
            }
            Form::Array(array) if self.count < ARRAY_MIN / 2 || self.count * 16 < self.span => {
                let heads = array
                    .drain(..)
                    .enumerate()
                    .filter(|(_, head)| !head.is_empty());
                let map = heads
                    .map(|(index, head)| (ChannelIndex::new(index as u32), head))
                    .collect();
                self.form = Form::Map(map);
            }
            Form::Map(_) | Form::Array(_) => {}
        }
    }
}
