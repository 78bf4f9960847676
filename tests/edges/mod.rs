//! Our edges against the real things behind them: each by itself, without a deploy around it.

mod actor;
mod aws_script;
mod compose;
mod load_balancer;
mod load_balancer_faults;
mod metadata;
mod serf;
