//! What holds across the room.

mod cases;
mod definitions;
mod harm;
mod rules;
mod support;
mod tags;
