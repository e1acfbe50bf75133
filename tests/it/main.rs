//! Everything that goes through a socket or a process, in one binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

mod access;
mod architecture;
mod bad_input;
mod bridge;
mod cli;
mod described;
mod door;
mod event_streams;
mod events;
mod examples;
mod faults;
mod half_close;
mod jobs_contract;
mod limits_and_stats;
mod loss_check;
mod memory_bounds;
mod moving_clients;
mod newborn;
mod operator;
mod order_cli;
mod order_interop;
mod order_stream;
mod orders;
mod orders_outage;
mod outage_resume;
mod pages;
mod proxies;
mod redis_cluster_outage;
mod redis_liveness;
mod redis_nodes;
mod redis_variants;
mod replay;
mod replay_file;
mod rolling_upgrade;
mod shutdown;
mod snapshots;
mod spool;
mod storage_choice;
mod storage_contract;
mod storage_orders;
mod storage_redis;
mod stream;
mod support;
mod zones;
