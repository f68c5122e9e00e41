//! The serialised shapes that Meridian's parts exchange.
