//! Provisioning: database, HTTP listener, feed.
