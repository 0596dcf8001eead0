//! What holds across the room.

mod cases;
mod definitions;
mod harm;
mod rules;
pub mod support;
mod tags;
