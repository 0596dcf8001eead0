//! The OpenFeature Remote Evaluation Protocol: flags evaluated here.
//!
//! | room | job |
//! |---|---|
//! | [`flagd`] | flags as flagd defines and evaluates them |

pub mod flagd;
