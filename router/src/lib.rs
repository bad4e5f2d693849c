//! Channel to subscribers, channel to retained messages.
