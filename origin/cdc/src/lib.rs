//! Change data capture: reads the slot, carries changes, applies them.
