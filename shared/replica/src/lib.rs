//! Stamps, conflict resolution and cursors, without input or output.
