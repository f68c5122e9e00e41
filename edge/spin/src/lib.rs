//! The edge as a Spin component.
