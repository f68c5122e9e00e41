//! The policies of the pipeline, one file each.
