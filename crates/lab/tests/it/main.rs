//! The programs of the laboratory, run as their users do.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

mod bench_access;
mod bench_orders;
mod outages;
mod support;
