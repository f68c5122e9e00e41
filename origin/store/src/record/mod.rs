//! Records of a collection: read, written, listed, always inside one tenant's [`Scope`](crate::Scope).
//!
//! A record is flat JSON: its fields beside `id`, `created_at` and `updated_at`. Writes check the collection's
//! JSON Schema; merging fields take operations such as `{"$add": 1}`. Every write is stamped by the database.

mod query;
mod value;
mod write;

pub use query::{InvalidQuery, Page, Query, list};
pub use value::{InvalidVersion, Record, Version, rfc3339};
pub use write::{Operation, Outcome, batch, create, delete, patch};

use uuid::Uuid;

use crate::collection::Collection;
use crate::{Fault, Scope};

/// Names that every record has, which no field may take.
pub const RESERVED: [&str; 3] = ["id", "created_at", "updated_at"];

/// Reads one record.
///
/// # Errors
/// [`Fault::NotFound`] when there is none, or it was deleted, or it is another tenant's.
pub async fn get(scope: &mut Scope, collection: &Collection, id: Uuid) -> Result<Record, Fault> {
    let (tenant, connection) = scope.split()?;
    let row = sqlx::query_as::<_, value::Row>(
        "select id, fields, merge, (extract(epoch from created_at) * 1000)::bigint,
                (extract(epoch from updated_at) * 1000)::bigint, _stamp, _region
           from meridian.record where tenant = $1 and collection = $2 and id = $3",
    )
    .bind(tenant)
    .bind(collection.name())
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(Record::from_row).ok_or(Fault::NotFound { what: "record" })
}
