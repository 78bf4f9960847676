//! End to end: whole fleets of real parts, and what a person who uses them would notice.

mod broken;
mod hands;
mod healing;
mod interrupted;
mod moved;
mod parts;
mod programs;
mod promoting;
mod proving;
mod rolling;
mod stepping;
mod way_back;
