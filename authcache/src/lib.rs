//! What control knows, in memory: names, rights, epochs, the gate, the feed.
