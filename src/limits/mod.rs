//! Rate limits: two budgets per tenant, and small budgets of a worker's own.
//!
//! [`rate`] is what an operator writes, [`gcra`] the algorithm, [`budgets`] the limits of tenants: one state for
//! all workers of an Envoy, in numbered slots of shared data. [`local`] is the same algorithm in a worker's own
//! memory. n Envoys allow n times the rate, as n pods of any service do.

pub mod budgets;
pub mod gcra;
pub mod local;
pub mod rate;
mod reserve;
mod slot;

pub use budgets::{Budget, Limiter, Limits, Mode, Spent};
pub use gcra::RetryAfter;
pub use local::LocalBudgets;
pub use rate::{Period, Rate, RateError};
