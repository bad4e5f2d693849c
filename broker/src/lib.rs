//! Shards, reactor, listeners: the only crate with data-path sockets.
