use meridian_store::sqlx;
use meridian_wire::change;

use crate::decode;

/// What ended a stream. Everything here is tried again by itself; the status shows the last one.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database or a row in it.
    #[error(transparent)]
    Store(#[from] meridian_store::Fault),
    /// PostgreSQL's log could not be read.
    #[error("the log can't be read")]
    Log(#[source] pgwire_replication::PgWireError),
    /// PostgreSQL ended the log's connection.
    #[error("the log's connection ended")]
    LogEnded,
    /// A row came before its table was described.
    #[error("a row of relation {id} came before the relation")]
    Relation {
        /// The relation.
        id: u32,
    },
    /// The log holds something that can't be understood.
    #[error(transparent)]
    Decode(#[from] decode::InvalidMessage),
    /// A message between origins can't be read or written.
    #[error(transparent)]
    Frame(#[from] change::InvalidMessage),
    /// A row needs a column that did not come with it.
    #[error("a row of {table} came without its column {column}")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: &'static str,
    },
    /// A version of a row is in the log, and nobody sees it yet.
    #[error("a row of {table} can't be read as the log has it, for {} s", crate::limits::VISIBLE_WAIT_MAX.as_secs())]
    Unseen {
        /// The table.
        table: String,
    },
    /// The connection between origins failed.
    #[error("the connection to the other region failed")]
    Connection(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The other origin's certificate is not one that is trusted here.
    #[error("the certificate of {url} is not trusted here")]
    Certificate {
        /// Where it was met.
        url: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No connection in time.
    #[error("the other region did not answer for {} s", crate::limits::CONNECT_TIMEOUT.as_secs())]
    Unanswered,
    /// The other origin said something else than it should.
    #[error("the other region sent {found}, expected {expected}")]
    Protocol {
        /// What came.
        found: String,
        /// What should have come.
        expected: &'static str,
    },
    /// The other origin closed the connection.
    #[error("the other region closed the connection")]
    Closed,
    /// The other origin said nothing for too long.
    #[error("the other region was silent for {} s", crate::limits::SILENCE_MAX.as_secs())]
    Silence,
    /// The peer connected again: the new connection takes over.
    #[error("the peer has connected again")]
    Superseded,
    /// This origin is stopping.
    #[error("this origin is stopping")]
    Stopping,
    /// A slot is held by another reader, which can't be ended.
    #[error("slot {slot} is held by another reader")]
    SlotHeld {
        /// The slot.
        slot: String,
    },
    /// A URL can't be used.
    #[error("invalid {what}: expected {expected}")]
    Url {
        /// Which.
        what: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

impl Fault {
    /// What kept a connection to `url` from being made.
    pub(crate) fn connecting(error: tokio_tungstenite::tungstenite::Error, url: &str) -> Self {
        if let tokio_tungstenite::tungstenite::Error::Io(io) = &error
            && let Some(source) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
            && matches!(source, rustls::Error::InvalidCertificate(_))
        {
            return Fault::Certificate { url: url.to_owned(), source: source.clone() };
        }
        error.into()
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Fault::Store(error.into())
    }
}

impl From<tokio_tungstenite::tungstenite::Error> for Fault {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        use tokio_tungstenite::tungstenite::Error;
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => Fault::Closed,
            error => Fault::Connection(Box::new(error)),
        }
    }
}

/// The fault and everything under it, for logs and the status.
pub(crate) fn chain(fault: &Fault) -> String {
    let mut text = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
