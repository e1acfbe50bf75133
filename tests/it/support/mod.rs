//! What tests share.

pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod eventually;
pub(crate) mod follow;
pub(crate) mod foreign;
pub(crate) mod gateway;
pub(crate) mod orders;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod reopening;
pub(crate) mod scripted;
pub(crate) mod stores;
pub(crate) mod tls;
pub(crate) mod tools;
pub(crate) mod witness;
