//! The page, as a browser meets it.

mod browser;
mod buttons;
mod content;
mod entry;
mod live;
