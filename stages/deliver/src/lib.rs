//! Which store and which folder, for every recipient.
