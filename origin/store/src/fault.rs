use crate::limits;

/// What went wrong in the store, by whose fault it is.
///
/// `Display` never shows text of the database: that stays in the source, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such row, or this tenant may not see it.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// There is such a row already, or there was one: ids are not used twice.
    #[error("{what} exists already")]
    Exists {
        /// What was to be made.
        what: &'static str,
    },
    /// The row has changed since the caller read it.
    #[error("the record is at version {found}, expected {expected}")]
    Version {
        /// The version that the caller named.
        expected: crate::record::Version,
        /// The version that it has.
        found: crate::record::Version,
    },
    /// The content breaks the collection's rules.
    #[error("the record does not fit its collection: {}", first(.0))]
    Invalid(Vec<Violation>),
    /// A list request that can't be understood.
    #[error(transparent)]
    Query(#[from] crate::record::InvalidQuery),
    /// A declaration that can't be accepted.
    #[error("invalid declaration at {path}: found {found}, expected {expected}")]
    Declaration {
        /// Where in the declaration.
        path: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A limit of this crate was reached.
    #[error("{what}: found {found}, at most {max} are allowed")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// One operation of a batch failed, and so none was done.
    #[error("operation {index}: {fault}")]
    At {
        /// Its place, from 0.
        index: usize,
        /// Why.
        fault: Box<Fault>,
    },
    /// Row-level security or a missing grant refused the statement.
    #[error("the database refused access")]
    Refused(#[source] sqlx::Error),
    /// This database belongs to another region than configured.
    #[error("this database is region {found}, the configuration says {expected}")]
    Node {
        /// What the database says.
        found: String,
        /// What was configured.
        expected: String,
    },
    /// A configured URL, name or password can't be used.
    #[error("invalid {what}: expected {expected}")]
    Configuration {
        /// Which setting.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// The database can't be reached, has no free connection, or lost this one.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Two transactions stood in each other's way; trying again is right.
    #[error("the transaction met another one and was undone")]
    Contention(#[source] sqlx::Error),
    /// A statement took longer than allowed.
    #[error("the statement took longer than {} s", limits::STATEMENT_TIMEOUT.as_secs())]
    Timeout(#[source] sqlx::Error),
    /// A migration failed.
    #[error("a migration failed")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else that the database said: our mistake.
    #[error("the database could not do it")]
    Database(#[source] sqlx::Error),
}

/// One way in which a record breaks its collection's rules.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) into the record.
    pub path: String,
    /// What is wrong, in a sentence.
    pub message: String,
}

fn first(violations: &[Violation]) -> String {
    violations.first().map(|v| format!("{} {}", v.path, v.message)).unwrap_or_default()
}

impl Fault {
    /// Whether the same call may succeed when it is made again.
    #[must_use]
    pub fn transient(&self) -> bool {
        match self {
            Fault::Unavailable(_) | Fault::Contention(_) => true,
            Fault::At { fault, .. } => fault.transient(),
            _ => false,
        }
    }

    /// The five-character SQLSTATE of the database's answer, if it is one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Fault::Refused(e)
            | Fault::Unavailable(e)
            | Fault::Contention(e)
            | Fault::Timeout(e)
            | Fault::Database(e) => code(e),
            Fault::At { fault, .. } => fault.sqlstate(),
            _ => None,
        }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned())
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let code = code(&error);
        match (&error, code.as_deref()) {
            (sqlx::Error::RowNotFound, _) => Fault::NotFound { what: "row" },
            (_, Some("23505")) => Fault::Exists { what: "row" },
            (_, Some("42501")) => Fault::Refused(error),
            (_, Some("40001" | "40P01" | "55P03")) => Fault::Contention(error),
            (_, Some("57014")) => Fault::Timeout(error),
            (_, Some(code)) if code.starts_with("08") || code.starts_with("57") || code.starts_with("53") => {
                Fault::Unavailable(error)
            }
            (_, Some(_)) => Fault::Database(error),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_),
                _,
            ) => Fault::Unavailable(error),
            _ => Fault::Database(error),
        }
    }
}
