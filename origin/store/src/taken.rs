use crate::Fault;

/// Names what exists already, where an insert met a row with its key; other faults stay what they are.
pub(crate) fn taken(what: &'static str) -> impl FnOnce(sqlx::Error) -> Fault {
    move |error| match Fault::from(error) {
        Fault::Exists { .. } => Fault::Exists { what },
        fault => fault,
    }
}
