//! What deployctl relies on in the programs around it, each fact as a test on the real program: an upgrade that changes
//! one fails here, with its name.

mod serf;
