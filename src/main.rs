//! Parse, set the logger up, dispatch, print the error chain, exit with the documented code.

fn main() {}
