//! Creates, patches and deletes records, alone or in batches.

use std::collections::BTreeMap;

use meridian_replica::conflict;
use meridian_replica::crdt::{Field, InvalidOperation, Kind};
use meridian_replica::{Region, Stamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::value::Row;
use super::{Record, Version};
use crate::collection::Collection;
use crate::fault::Violation;
use crate::{Fault, Scope, limits};

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Makes a record.
    Create {
        /// Its id; a new UUIDv7 when absent.
        #[serde(default)]
        id: Option<Uuid>,
        /// Its fields.
        record: Map<String, Value>,
    },
    /// Changes a record by a merge patch.
    Patch {
        /// Its id.
        id: Uuid,
        /// The patch.
        record: Map<String, Value>,
        /// The version that it must have.
        #[serde(default)]
        if_match: Option<String>,
    },
    /// Deletes a record.
    Delete {
        /// Its id.
        id: Uuid,
        /// The version that it must have.
        #[serde(default)]
        if_match: Option<String>,
    },
}

/// What one operation of a batch did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The record as it is now.
    Written(Record),
    /// The id of a deleted record.
    Deleted(Uuid),
}

type Merges = BTreeMap<String, Field>;

/// Makes a record. Merging fields take a plain value or an operation.
///
/// # Errors
/// [`Fault::Invalid`] and [`Fault::Limit`] for the content; [`Fault::Exists`] when the id is taken or was once.
pub async fn create(
    scope: &mut Scope,
    collection: &Collection,
    id: Option<Uuid>,
    fields: Map<String, Value>,
) -> Result<Record, Fault> {
    let (tenant, connection) = scope.split()?;
    let now = now(connection, collection).await?;
    let (mut plain, mut merges) = (Map::new(), Merges::new());
    for (name, value) in fields {
        match collection.kinds.get(&name) {
            Some(kind) => operate(&mut merges, &plain, &name, *kind, &value, now)?,
            None => {
                refuse_operation(&name, &value)?;
                plain.insert(name, value);
            }
        }
    }
    show(&mut plain, &merges);
    collection.check(&plain)?;
    let row: Row = sqlx::query_as(
        "insert into meridian.record (tenant, collection, id, fields, merge) values ($1, $2, $3, $4, $5)
         returning id, fields, merge, (extract(epoch from created_at) * 1000)::bigint,
                   (extract(epoch from updated_at) * 1000)::bigint, _stamp, _region",
    )
    .bind(tenant)
    .bind(collection.name())
    .bind(id.unwrap_or_else(Uuid::now_v7))
    .bind(Json(plain))
    .bind(conflict::Record::merges_to_json(&merges))
    .fetch_one(connection)
    .await
    .map_err(|error| match Fault::from(error) {
        Fault::Exists { .. } => Fault::Exists { what: "record" },
        other => other,
    })?;
    Ok(Record::from_row(row))
}

/// Changes a record by a JSON merge patch (RFC 7396). Merging fields take operations or a value to assign;
/// they can't be removed. A patch that changes nothing writes nothing.
///
/// # Errors
/// [`Fault::NotFound`]; [`Fault::Version`] when `expected` is another version; [`Fault::Invalid`], [`Fault::Limit`].
pub async fn patch(
    scope: &mut Scope,
    collection: &Collection,
    id: Uuid,
    patch: Map<String, Value>,
    expected: Option<&Version>,
) -> Result<Record, Fault> {
    let (tenant, connection) = scope.split()?;
    let row = lock(connection, tenant, collection, id).await?;
    let stored = row.2.clone();
    let held = Record::from_row(row);
    check_version(&held, expected)?;
    let now = now(connection, collection).await?;
    let mut merges = conflict::Record::merges_from_json(&stored).map_err(|error| Fault::Declaration {
        path: "/merge".into(),
        found: error.found,
        expected: "states that this program wrote".into(),
    })?;
    let mut fields = held.fields.clone();
    for (name, value) in patch {
        match collection.kinds.get(&name) {
            Some(kind) => operate(&mut merges, &held.fields, &name, *kind, &value, now)?,
            None => {
                refuse_operation(&name, &value)?;
                merge_patch_field(&mut fields, name, value);
            }
        }
    }
    show(&mut fields, &merges);
    let states = conflict::Record::merges_to_json(&merges);
    if fields == held.fields && states == stored {
        return Ok(held);
    }
    collection.check(&fields)?;
    let row: Row = sqlx::query_as(
        "update meridian.record set fields = $4, merge = $5, updated_at = now()
          where tenant = $1 and collection = $2 and id = $3
         returning id, fields, merge, (extract(epoch from created_at) * 1000)::bigint,
                   (extract(epoch from updated_at) * 1000)::bigint, _stamp, _region",
    )
    .bind(tenant)
    .bind(collection.name())
    .bind(id)
    .bind(Json(fields))
    .bind(states)
    .fetch_one(connection)
    .await?;
    Ok(Record::from_row(row))
}

/// Deletes a record. Its tombstone reaches the other regions.
///
/// # Errors
/// [`Fault::NotFound`]; [`Fault::Version`] when `expected` is another version.
pub async fn delete(
    scope: &mut Scope,
    collection: &Collection,
    id: Uuid,
    expected: Option<&Version>,
) -> Result<(), Fault> {
    let (tenant, connection) = scope.split()?;
    let held = Record::from_row(lock(connection, tenant, collection, id).await?);
    check_version(&held, expected)?;
    sqlx::query("delete from meridian.record where tenant = $1 and collection = $2 and id = $3")
        .bind(tenant)
        .bind(collection.name())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

/// Does operations in order. The caller commits the scope when this succeeds, and drops it otherwise, so that all
/// or none happen.
///
/// # Errors
/// [`Fault::At`] with the place of the operation that failed; [`Fault::Limit`] for too many.
pub async fn batch(
    scope: &mut Scope,
    collection: &Collection,
    operations: &[Operation],
) -> Result<Vec<Outcome>, Fault> {
    if operations.len() > limits::BATCH_MAX {
        let found = operations.len() as u64;
        return Err(Fault::Limit { what: "operations of a batch", found, max: limits::BATCH_MAX as u64 });
    }
    let mut outcomes = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let outcome = one(scope, collection, operation).await;
        outcomes.push(outcome.map_err(|fault| Fault::At { index, fault: Box::new(fault) })?);
    }
    Ok(outcomes)
}

async fn one(scope: &mut Scope, collection: &Collection, operation: &Operation) -> Result<Outcome, Fault> {
    match operation {
        Operation::Create { id, record } => {
            create(scope, collection, *id, record.clone()).await.map(Outcome::Written)
        }
        Operation::Patch { id, record, if_match } => {
            let expected = version(if_match.as_deref())?;
            patch(scope, collection, *id, record.clone(), expected.as_ref()).await.map(Outcome::Written)
        }
        Operation::Delete { id, if_match } => {
            let expected = version(if_match.as_deref())?;
            delete(scope, collection, *id, expected.as_ref()).await.map(|()| Outcome::Deleted(*id))
        }
    }
}

fn version(text: Option<&str>) -> Result<Option<Version>, Fault> {
    let Some(text) = text else { return Ok(None) };
    match text.trim_matches('"').parse() {
        Ok(version) => Ok(Some(version)),
        Err(_) => Err(Fault::Invalid(vec![Violation {
            path: "/if_match".into(),
            message: "is not a version: expected the record's entity tag".into(),
        }])),
    }
}

fn check_version(held: &Record, expected: Option<&Version>) -> Result<(), Fault> {
    match expected {
        Some(expected) if *expected != held.version => {
            Err(Fault::Version { expected: *expected, found: held.version })
        }
        _ => Ok(()),
    }
}

async fn lock(
    connection: &mut PgConnection,
    tenant: &str,
    collection: &Collection,
    id: Uuid,
) -> Result<Row, Fault> {
    sqlx::query_as(
        "select id, fields, merge, (extract(epoch from created_at) * 1000)::bigint,
                (extract(epoch from updated_at) * 1000)::bigint, _stamp, _region
           from meridian.record where tenant = $1 and collection = $2 and id = $3 for update",
    )
    .bind(tenant)
    .bind(collection.name())
    .bind(id)
    .fetch_optional(connection)
    .await?
    .ok_or(Fault::NotFound { what: "record" })
}

/// A stamp for merging fields; only asked for where there are any.
async fn now(connection: &mut PgConnection, collection: &Collection) -> Result<Stamp, Fault> {
    if collection.kinds.is_empty() {
        return Ok(Stamp::ZERO);
    }
    let (tick, region): (i64, i16) =
        sqlx::query_as("select meridian.tick(), meridian.region()").fetch_one(connection).await?;
    Ok(Stamp::new(tick as u64, Region(region as u16)))
}

fn operate(
    merges: &mut Merges,
    fields: &Map<String, Value>,
    name: &str,
    kind: Kind,
    operation: &Value,
    now: Stamp,
) -> Result<(), Fault> {
    let invalid = |error: InvalidOperation| {
        let message = format!("is a {} field: {error}", kind.name());
        Fault::Invalid(vec![Violation { path: format!("/{name}"), message }])
    };
    let stored = merges.remove(name).filter(|field| field.kind() >= kind);
    let mut field = match (stored, fields.get(name)) {
        (Some(field), _) => field,
        // The field was plain until now: start from its value where it fits.
        (None, Some(value)) => {
            let mut field = Field::empty(kind);
            if field.operate(value, now).is_err() {
                field = Field::empty(kind);
            }
            field
        }
        (None, None) => Field::empty(kind),
    };
    field.operate(operation, now).map_err(invalid)?;
    merges.insert(name.to_owned(), field);
    Ok(())
}

fn show(fields: &mut Map<String, Value>, merges: &Merges) {
    for (name, field) in merges {
        fields.insert(name.clone(), field.value());
    }
}

/// `{"$add": 1}` on a field that doesn't merge is a mistake, not a value.
fn refuse_operation(name: &str, value: &Value) -> Result<(), Fault> {
    let operation = value.as_object().and_then(|object| object.keys().find(|key| key.starts_with('$')));
    match operation {
        None => Ok(()),
        Some(key) => Err(Fault::Invalid(vec![Violation {
            path: format!("/{name}"),
            message: format!("takes no operation `{key}`: the collection does not declare how it merges"),
        }])),
    }
}

/// RFC 7396, section 2.
fn merge_patch_field(target: &mut Map<String, Value>, name: String, patch: Value) {
    match patch {
        Value::Null => {
            target.remove(&name);
        }
        Value::Object(patch) => {
            let mut inner = match target.remove(&name) {
                Some(Value::Object(inner)) => inner,
                _ => Map::new(),
            };
            for (name, value) in patch {
                merge_patch_field(&mut inner, name, value);
            }
            target.insert(name, Value::Object(inner));
        }
        value => {
            target.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn merge_patch_follows_the_rfc() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut fields = target.as_object().unwrap().clone();
            for (name, value) in patch.as_object().unwrap().clone() {
                merge_patch_field(&mut fields, name, value);
            }
            assert_eq!(Value::Object(fields), expected, "{target} + {patch}");
        }
    }

    #[test]
    fn operations_are_refused_where_they_make_no_sense() {
        assert!(refuse_operation("note", &json!({"$add": 1})).is_err());
        assert!(refuse_operation("note", &json!({"add": 1})).is_ok());
        let mut merges = Merges::new();
        let refused = operate(&mut merges, &Map::new(), "stock", Kind::Counter, &json!(null), Stamp::ZERO);
        match refused {
            Err(Fault::Invalid(violations)) => assert!(violations[0].message.contains("counter field")),
            other => panic!("{other:?}"),
        }
    }
}
