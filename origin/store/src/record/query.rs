//! Lists records: filters, order and pages of a list request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meridian_replica::crdt::Kind;
use serde_json::{Value, json};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::Record;
use super::value::Row;
use crate::collection::Collection;
use crate::{Fault, Scope, limits};

/// A list request: filters, an order, a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    filters: Vec<Filter>,
    order: Order,
    limit: u32,
    after: Option<(Value, Uuid)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    column: Column,
    comparison: Comparison,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Id,
    CreatedAt,
    UpdatedAt,
    Field(String),
    /// A field that merges as a set: equality means that it contains the value.
    Elements(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Order {
    column: Column,
    descending: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Its records.
    pub records: Vec<Record>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// A list request that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{parameter}`: found `{found}`, expected {expected}")]
pub struct InvalidQuery {
    /// The parameter.
    pub parameter: String,
    /// What it was, shortened.
    pub found: String,
    /// What it should be.
    pub expected: String,
}

fn invalid(parameter: &str, found: &str, expected: impl Into<String>) -> InvalidQuery {
    let shorten = |text: &str| text.chars().take(80).collect();
    InvalidQuery { parameter: shorten(parameter), found: shorten(found), expected: expected.into() }
}

impl Query {
    /// Reads the parameters of a list request, already percent-decoded: `FIELD=value`, `FIELD[gt]=value` (`gt`,
    /// `gte`, `lt`, `lte`, `ne`), `order=FIELD` or `-FIELD` (default `id`, the order of creation), `limit`, `cursor`.
    ///
    /// A value is read by the type that the collection's JSON Schema gives the field; where it gives none, numbers,
    /// `true`, `false` and `null` stand for themselves and anything else is text.
    ///
    /// # Errors
    /// [`InvalidQuery`] names the parameter, what was found and what was expected.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        collection: &Collection,
    ) -> Result<Self, InvalidQuery> {
        let mut query = Query {
            filters: Vec::new(),
            order: Order { column: Column::Id, descending: false },
            limit: limits::PAGE_DEFAULT,
            after: None,
        };
        let mut cursor = None;
        for (name, text) in pairs {
            match name {
                "limit" => {
                    let limit = text.parse().ok().filter(|limit| (1..=limits::PAGE_MAX).contains(limit));
                    query.limit = limit.ok_or_else(|| {
                        invalid(name, text, format!("a number from 1 to {}", limits::PAGE_MAX))
                    })?;
                }
                "order" => {
                    let (field, descending) =
                        text.strip_prefix('-').map_or((text, false), |field| (field, true));
                    query.order = Order { column: column(name, field, None)?, descending };
                }
                "cursor" => cursor = Some(text),
                _ => query.filters.push(filter(name, text, collection)?),
            }
            if query.filters.len() > limits::FILTERS_MAX {
                return Err(invalid(name, text, format!("at most {} filters", limits::FILTERS_MAX)));
            }
        }
        if let Some(text) = cursor {
            let expected = "the `next` of the page before, with the same filters and order";
            query.after = Some(query.read_cursor(text).ok_or_else(|| invalid("cursor", text, expected))?);
        }
        Ok(query)
    }

    /// Identifies filters and order, so that a cursor is not used with others.
    fn fingerprint(&self) -> String {
        let text = format!("{:?} {:?}", self.filters, self.order);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        format!("{hash:x}")
    }

    fn read_cursor(&self, text: &str) -> Option<(Value, Uuid)> {
        if text.len() > limits::CURSOR_BYTES_MAX {
            return None;
        }
        let cursor: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let parts = cursor.as_array().filter(|parts| parts.len() == 3)?;
        if parts[0].as_str() != Some(&self.fingerprint()) {
            return None;
        }
        let value = parts[1].clone();
        if matches!(self.order.column, Column::CreatedAt | Column::UpdatedAt) && !value.is_i64() {
            return None;
        }
        Some((value, parts[2].as_str()?.parse().ok()?))
    }

    fn write_cursor(&self, last: &Record) -> Option<String> {
        let value = match &self.order.column {
            Column::Id => Value::Null,
            Column::CreatedAt => Value::from(last.created_at_ms),
            Column::UpdatedAt => Value::from(last.updated_at_ms),
            Column::Field(name) | Column::Elements(name) => {
                last.fields.get(name).cloned().unwrap_or(Value::Null)
            }
        };
        let cursor = URL_SAFE_NO_PAD.encode(json!([self.fingerprint(), value, last.id]).to_string());
        // A field's value may be too large to travel in a URL; such a page is the last that can be asked for.
        (cursor.len() <= limits::CURSOR_BYTES_MAX).then_some(cursor)
    }

    fn sql(&self, tenant: &str, collection: &Collection) -> QueryBuilder<Postgres> {
        let mut sql = QueryBuilder::new(
            "select id, fields, merge, (extract(epoch from created_at) * 1000)::bigint,
                    (extract(epoch from updated_at) * 1000)::bigint, _stamp, _region
               from meridian.record where tenant = ",
        );
        sql.push_bind(tenant.to_owned()).push(" and collection = ").push_bind(collection.name().to_owned());
        for filter in &self.filters {
            sql.push(" and ");
            filter.push(&mut sql);
        }
        let direction = if self.order.descending { "<" } else { ">" };
        if let Some((value, id)) = &self.after {
            sql.push(" and ");
            if self.order.column == Column::Id {
                sql.push("id ");
                sql.push(direction).push(" ").push_bind(*id);
            } else {
                sql.push("(");
                self.order.column.push(&mut sql);
                sql.push(", id) ").push(direction).push(" (");
                match self.order.column {
                    Column::CreatedAt | Column::UpdatedAt => {
                        sql.push("'epoch'::timestamptz + interval '1 millisecond' * ");
                        sql.push_bind(value.as_i64().unwrap_or(0));
                    }
                    _ => {
                        sql.push_bind(value.clone());
                    }
                }
                sql.push(", ").push_bind(*id).push(")");
            }
        }
        let order = if self.order.descending { " desc" } else { "" };
        sql.push(" order by ");
        if self.order.column != Column::Id {
            self.order.column.push(&mut sql);
            sql.push(order).push(", ");
        }
        sql.push("id").push(order).push(" limit ").push_bind(i64::from(self.limit) + 1);
        sql
    }
}

impl Column {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        match self {
            Column::Id => sql.push("id"),
            Column::CreatedAt => sql.push("created_at"),
            Column::UpdatedAt => sql.push("updated_at"),
            Column::Field(name) | Column::Elements(name) => {
                sql.push("coalesce(fields -> ").push_bind(name.clone()).push(", 'null'::jsonb)")
            }
        };
    }
}

impl Filter {
    fn push(&self, sql: &mut QueryBuilder<Postgres>) {
        let operator = match self.comparison {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Gt => ">",
            Comparison::Gte => ">=",
            Comparison::Lt => "<",
            Comparison::Lte => "<=",
        };
        let text = self.value.as_str().unwrap_or_default().to_owned();
        match (&self.column, self.comparison) {
            (Column::Id, _) => {
                sql.push("id ").push(operator).push(" ").push_bind(text).push("::uuid");
            }
            (Column::CreatedAt | Column::UpdatedAt, _) => {
                self.column.push(sql);
                sql.push(" ").push(operator).push(" ").push_bind(text).push("::timestamptz");
            }
            (Column::Elements(_), Comparison::Eq | Comparison::Ne) => {
                sql.push(if self.comparison == Comparison::Ne { "not (" } else { "(" });
                self.column.push(sql);
                sql.push(" @> ").push_bind(json!([self.value])).push(")");
            }
            (_, Comparison::Eq | Comparison::Ne) => {
                self.column.push(sql);
                sql.push(" ").push(operator).push(" ").push_bind(self.value.clone());
            }
            // A number is never above or below a text: compare like with like only.
            _ => {
                sql.push("(");
                self.column.push(sql);
                sql.push(" ")
                    .push(operator)
                    .push(" ")
                    .push_bind(self.value.clone())
                    .push(" and jsonb_typeof(");
                self.column.push(sql);
                sql.push(") = jsonb_typeof(").push_bind(self.value.clone()).push("))");
            }
        }
    }
}

fn column(parameter: &str, name: &str, collection: Option<&Collection>) -> Result<Column, InvalidQuery> {
    match name {
        "id" => Ok(Column::Id),
        "created_at" => Ok(Column::CreatedAt),
        "updated_at" => Ok(Column::UpdatedAt),
        _ if crate::collection::check_field_name(name).is_err() => {
            Err(invalid(parameter, name, "a field's name, or id, created_at or updated_at"))
        }
        _ if collection.is_some_and(|c| c.kinds.get(name) == Some(&Kind::Set)) => {
            Ok(Column::Elements(name.to_owned()))
        }
        _ => Ok(Column::Field(name.to_owned())),
    }
}

fn filter(parameter: &str, text: &str, collection: &Collection) -> Result<Filter, InvalidQuery> {
    let (name, comparison) = match parameter.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        None => (parameter, Comparison::Eq),
        Some((name, comparison)) => {
            let comparison = match comparison {
                "eq" => Comparison::Eq,
                "ne" => Comparison::Ne,
                "gt" => Comparison::Gt,
                "gte" => Comparison::Gte,
                "lt" => Comparison::Lt,
                "lte" => Comparison::Lte,
                other => return Err(invalid(parameter, other, "eq, ne, gt, gte, lt or lte in the brackets")),
            };
            (name, comparison)
        }
    };
    if text.len() > limits::FILTER_CHARS_MAX || text.contains('\0') {
        return Err(invalid(parameter, text, format!("at most {} characters", limits::FILTER_CHARS_MAX)));
    }
    let column = column(parameter, name, Some(collection))?;
    let value = match &column {
        Column::Id => {
            let id: Uuid = text.parse().map_err(|_| invalid(parameter, text, "a UUID"))?;
            Value::from(id.to_string())
        }
        Column::CreatedAt | Column::UpdatedAt => {
            if !text.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(invalid(parameter, text, "a time such as 2026-01-31T12:00:00Z"));
            }
            Value::from(text)
        }
        Column::Field(name) => typed(parameter, text, schema_type(collection, name))?,
        Column::Elements(_) => typed(parameter, text, None)?,
    };
    Ok(Filter { column, comparison, value })
}

fn schema_type<'a>(collection: &'a Collection, name: &str) -> Option<&'a str> {
    collection.declaration.json_schema.get("properties")?.get(name)?.get("type")?.as_str()
}

fn typed(parameter: &str, text: &str, kind: Option<&str>) -> Result<Value, InvalidQuery> {
    let scalar: Option<Value> = serde_json::from_str(text)
        .ok()
        .filter(|value: &Value| value.is_number() || value.is_boolean() || value.is_null());
    match (kind, scalar) {
        (Some("string"), _) => Ok(Value::from(text)),
        (Some("number" | "integer"), Some(value)) if value.is_number() => Ok(value),
        (Some("number" | "integer"), _) => Err(invalid(parameter, text, "a number")),
        (Some("boolean"), Some(value)) if value.is_boolean() => Ok(value),
        (Some("boolean"), _) => Err(invalid(parameter, text, "true or false")),
        (_, Some(value)) => Ok(value),
        (_, None) => Ok(Value::from(text)),
    }
}

/// Lists records of a collection.
///
/// # Errors
/// [`Fault::Query`] when a value does not fit what it is compared with.
pub async fn list(scope: &mut Scope, collection: &Collection, query: &Query) -> Result<Page, Fault> {
    let (tenant, connection) = scope.split()?;
    let rows: Vec<Row> =
        query.sql(tenant, collection).build_query_as().fetch_all(connection).await.map_err(|error| {
            let fault = Fault::from(error);
            match fault.sqlstate() {
                // Class 22, data exception: a value that PostgreSQL could not read as a time.
                Some(code) if code.starts_with("22") => {
                    invalid("created_at or updated_at", "", "a time such as 2026-01-31T12:00:00Z").into()
                }
                _ => fault,
            }
        })?;
    let more = rows.len() > query.limit as usize;
    let records: Vec<Record> = rows.into_iter().take(query.limit as usize).map(Record::from_row).collect();
    let next = if more { records.last().and_then(|last| query.write_cursor(last)) } else { None };
    Ok(Page { records, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn orders() -> Collection {
        Collection::new(crate::Declaration {
            name: "orders".into(),
            json_schema: json!({"properties": {
                "total": {"type": "number"}, "code": {"type": "string"}, "paid": {"type": "boolean"}}}),
            merge: BTreeMap::from([("tags".into(), crate::Merge::Set)]),
        })
        .unwrap()
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Query, InvalidQuery> {
        Query::parse(pairs.iter().copied(), &orders())
    }

    #[test]
    fn values_follow_the_schema() {
        let query =
            parse(&[("total[gte]", "5"), ("code", "5"), ("paid", "true"), ("other", "5"), ("tags", "new")]);
        let values: Vec<Value> = query.unwrap().filters.into_iter().map(|filter| filter.value).collect();
        assert_eq!(values, [json!(5), json!("5"), json!(true), json!(5), json!("new")]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (pair, expected) in [
            (("limit", "0"), "a number from 1 to 200"),
            (("total", "x"), "a number"),
            (("total[like]", "x"), "eq, ne, gt, gte, lt or lte in the brackets"),
            (("a-b", "x"), "a field's name, or id, created_at or updated_at"),
            (("order", "-a b"), "a field's name, or id, created_at or updated_at"),
            (("id", "7"), "a UUID"),
            (("created_at[gt]", "now"), "a time such as 2026-01-31T12:00:00Z"),
            (("cursor", "abc"), "the `next` of the page before, with the same filters and order"),
        ] {
            assert_eq!(parse(&[pair]).unwrap_err().expected, expected, "{pair:?}");
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_filters_and_order() {
        let query = parse(&[("order", "-total"), ("paid", "true")]).unwrap();
        let record = Record {
            id: Uuid::nil(),
            fields: json!({"total": 7}).as_object().unwrap().clone(),
            created_at_ms: 0,
            updated_at_ms: 0,
            version: "1.1".parse().unwrap(),
        };
        let cursor = query.write_cursor(&record).unwrap();
        let again = parse(&[("order", "-total"), ("paid", "true"), ("cursor", &cursor)]).unwrap();
        assert_eq!(again.after, Some((json!(7), Uuid::nil())));
        assert!(parse(&[("order", "total"), ("paid", "true"), ("cursor", &cursor)]).is_err());
        assert!(parse(&[("order", "-total"), ("cursor", &cursor)]).is_err());
    }
}
