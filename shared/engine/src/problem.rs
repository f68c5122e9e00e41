//! What a client is told when something went wrong: problem details (RFC 9457).
