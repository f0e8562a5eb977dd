//! For tests: a Redis of its own per test, fault proxies, scripted clients, a telemetry collector, processes, a history checker.
//!
//! Everything runs on loopback ports that the system chose, and ends with the value that stands for it. Nothing
//! here waits for a time to pass: [`wait_until`] waits for a condition, with a deadline.

mod checker;
mod clock;
mod collector;
mod inflating;
mod live;
mod process;
mod proxy;
pub mod raw;
mod redis;
mod wait;

pub use checker::{Report, check_channel};
pub use collector::{Collector, tls_fixture};
pub use live::{ConnectError, Envelope, LiveClient};
pub use process::Process;
pub use proxy::{Direction, Proxy};
pub use redis::{RedisOptions, RedisServer};
pub use wait::wait_until;
