//! MQTT 3.1, 3.1.1 and 5.0: one machine, cut along the specification's chapters.

pub(crate) mod acknowledge;
pub(crate) mod alias;
pub(crate) mod auth;
pub(crate) mod connack;
pub(crate) mod connect;
pub(crate) mod deliver;
pub(crate) mod disconnect;
pub(crate) mod fast;
pub(crate) mod keep_alive;
pub(crate) mod machine;
pub(crate) mod outgoing;
pub(crate) mod publish;
pub(crate) mod received;
pub(crate) mod reply;
pub(crate) mod subscribe;
pub(crate) mod target;
pub(crate) mod will;
pub(crate) mod window;
