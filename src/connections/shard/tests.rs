//! One shard on real sockets, with a stopped clock: which channel waits for whom, and for how long.

mod answers;
mod asking;
mod guests;
mod house;
mod leaving;
mod pacing;
mod streams;
mod turns;
