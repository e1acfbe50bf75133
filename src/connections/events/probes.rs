//! A probe of the parser of event ids, which clients send back.

use super::id::{Resume, id_of};
use crate::model::ChannelName;
use crate::support::probing::text;

/// Ids of events (`Last-Event-ID`).
pub(crate) fn resumes(bytes: &[u8]) {
    let Some(Ok(Resume::After(positions))) = text(bytes).map(str::parse) else { return };
    let channel: ChannelName = "zone:pjm".parse().expect("a name");
    let places: Vec<_> = positions.iter().map(|position| (channel.clone(), position.clone())).collect();
    let id = id_of(&places);
    if id.len() < bytes.len() + 1_024 && id.len() < 6_000 {
        assert_eq!(id.parse(), Ok(Resume::After(positions)), "{id}");
    }
}
