//! End to end: whole fleets of real parts, and what a person who uses them would notice.

mod broken;
mod fixtures;
mod healing;
mod interrupted;
mod manual;
mod moved;
mod programs;
mod promoting;
mod rolling;
mod stepping;
mod verify;
mod way_back;
mod with_lock;
mod zones;
