use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use meridian_replica::crdt::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::types::Json;

use crate::fault::Violation;
use crate::{Fault, Scope, Store, limits};

/// How a field's concurrent changes come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// The later write wins, together with the record's other plain fields. What a field does when nothing is said.
    Lww,
    /// A whole number to which every region's additions count.
    Counter,
    /// A set of scalars; adding wins over a concurrent removal.
    Set,
    /// An object whose keys win one by one.
    Map,
}

impl Merge {
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Merge::Lww => None,
            Merge::Counter => Some(Kind::Counter),
            Merge::Set => Some(Kind::Set),
            Merge::Map => Some(Kind::Map),
        }
    }
}

/// What a tenant says about one of its collections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// The name in URLs, scopes and cache tags: `a-z`, `0-9`, `_` and `-`, starting with a letter.
    pub name: String,
    /// JSON Schema (2020-12 unless it says otherwise) of a record's fields. References must stay inside it.
    pub json_schema: Value,
    /// Fields that merge, by name.
    #[serde(default)]
    pub merge: BTreeMap<String, Merge>,
}

/// A declared collection, ready to check records.
pub struct Collection {
    /// Its declaration.
    pub declaration: Declaration,
    pub(crate) kinds: BTreeMap<String, Kind>,
    validator: jsonschema::Validator,
}

impl std::fmt::Debug for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collection").field("declaration", &self.declaration).finish_non_exhaustive()
    }
}

impl Collection {
    /// Checks a declaration and prepares it.
    ///
    /// # Errors
    /// [`Fault::Declaration`] with the path, what was found and what was expected; [`Fault::Limit`].
    pub fn new(declaration: Declaration) -> Result<Self, Fault> {
        let name = &declaration.name;
        let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
            && name.len() <= limits::COLLECTION_NAME_CHARS_MAX;
        if !fits {
            return Err(Fault::Declaration {
                path: "/name".into(),
                found: name.chars().take(80).collect(),
                expected: format!(
                    "1 to {} of a-z, 0-9, _ and -, starting with a letter",
                    limits::COLLECTION_NAME_CHARS_MAX
                ),
            });
        }
        let bytes = declaration.json_schema.to_string().len();
        if bytes > limits::SCHEMA_BYTES_MAX {
            return Err(Fault::Limit {
                what: "bytes of a JSON Schema",
                found: bytes as u64,
                max: limits::SCHEMA_BYTES_MAX as u64,
            });
        }
        // Linear-time patterns only: a schema comes from a tenant, and may not stall the origin.
        let validator = jsonschema::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&declaration.json_schema)
            .map_err(|error| Fault::Declaration {
                path: format!("/json_schema{}", error.instance_path()),
                found: error.to_string().chars().take(200).collect(),
                expected: "a valid JSON Schema without outside references".into(),
            })?;
        for field in declaration.merge.keys() {
            check_field_name(field)?;
        }
        let kinds = declaration
            .merge
            .iter()
            .filter_map(|(field, merge)| merge.kind().map(|kind| (field.clone(), kind)))
            .collect();
        Ok(Self { declaration, kinds, validator })
    }

    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.declaration.name
    }

    /// Checks a record's fields: number, names, size, and the JSON Schema.
    ///
    /// # Errors
    /// [`Fault::Invalid`] with every violation up to a limit, or [`Fault::Limit`].
    pub fn check(&self, fields: &Map<String, Value>) -> Result<(), Fault> {
        if fields.len() > limits::FIELDS_MAX {
            return Err(Fault::Limit {
                what: "fields of a record",
                found: fields.len() as u64,
                max: limits::FIELDS_MAX as u64,
            });
        }
        for name in fields.keys() {
            check_field_name(name)?;
        }
        let value = Value::Object(fields.clone());
        let bytes = value.to_string().len();
        if bytes > limits::FIELDS_BYTES_MAX {
            return Err(Fault::Limit {
                what: "bytes of a record",
                found: bytes as u64,
                max: limits::FIELDS_BYTES_MAX as u64,
            });
        }
        if contains_nul(&value) {
            return Err(Fault::Invalid(vec![Violation {
                path: String::new(),
                message: "contains the character U+0000, which can't be stored".into(),
            }]));
        }
        let violations: Vec<Violation> = self
            .validator
            .iter_errors(&value)
            .take(limits::VIOLATIONS_MAX)
            .map(|error| Violation {
                path: error.instance_path().to_string(),
                message: error.to_string().chars().take(300).collect(),
            })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(Fault::Invalid(violations)) }
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(object) => object.iter().any(|(key, value)| key.contains('\0') || contains_nul(value)),
        _ => false,
    }
}

/// A field's name: a letter or `_`, then letters, digits and `_`; not one that every record has.
pub(crate) fn check_field_name(name: &str) -> Result<(), Fault> {
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= limits::FIELD_NAME_CHARS_MAX
        && !crate::record::RESERVED.contains(&name);
    if fits {
        Ok(())
    } else {
        Err(Fault::Invalid(vec![Violation {
            path: format!(
                "/{}",
                name.chars().take(80).collect::<String>().replace('~', "~0").replace('/', "~1")
            ),
            message: format!(
                "is not a field name: expected up to {} letters, digits and _, not starting with a digit, and none of {}",
                limits::FIELD_NAME_CHARS_MAX,
                crate::record::RESERVED.join(", ")
            ),
        }]))
    }
}

type Key = (String, String);
type Declared = (String, Value, Json<BTreeMap<String, Merge>>);

/// Collections in memory, each for a short time.
#[derive(Default)]
pub(crate) struct Cache {
    entries: Mutex<HashMap<Key, (Instant, Arc<Collection>)>>,
}

impl Cache {
    fn get(&self, key: &Key) -> Option<(Instant, Arc<Collection>)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: Key, collection: Arc<Collection>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= limits::COLLECTIONS_CACHED_MAX {
            entries.clear();
        }
        entries.insert(key, (Instant::now(), collection));
    }

    fn forget(&self, key: &Key) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Store {
    /// Makes or changes a collection of `tenant`. Records that are there already are not checked again.
    ///
    /// # Errors
    /// What [`Collection::new`] refuses; [`Fault::Limit`] when the tenant has too many.
    pub async fn declare_collection(
        &self,
        scope: &mut Scope,
        tenant: &str,
        declaration: &Declaration,
    ) -> Result<(), Fault> {
        Collection::new(declaration.clone())?;
        let (others, exists): (i64, bool) = sqlx::query_as(
            "select count(*) filter (where name <> $2), coalesce(bool_or(name = $2), false)
               from meridian.collection where tenant = $1",
        )
        .bind(tenant)
        .bind(&declaration.name)
        .fetch_one(scope.conn())
        .await?;
        if !exists && others >= limits::COLLECTIONS_MAX {
            return Err(Fault::Limit {
                what: "collections of a tenant",
                found: others as u64 + 1,
                max: limits::COLLECTIONS_MAX as u64,
            });
        }
        sqlx::query(
            "insert into meridian.collection as c (tenant, name, json_schema, merge) values ($1, $2, $3, $4)
             on conflict (tenant, name) do update
             set json_schema = excluded.json_schema, merge = excluded.merge, updated_at = now()
             where (c.json_schema, c.merge) is distinct from (excluded.json_schema, excluded.merge)",
        )
        .bind(tenant)
        .bind(&declaration.name)
        .bind(&declaration.json_schema)
        .bind(Json(&declaration.merge))
        .execute(scope.conn())
        .await?;
        self.collections.forget(&(tenant.to_owned(), declaration.name.clone()));
        Ok(())
    }

    /// A collection of the scope's tenant, prepared; from memory when it was read within the last second.
    ///
    /// # Errors
    /// [`Fault::NotFound`] when the tenant has not declared it.
    pub async fn collection(&self, scope: &mut Scope, name: &str) -> Result<Arc<Collection>, Fault> {
        let (tenant, connection) = scope.split()?;
        let key = (tenant.to_owned(), name.to_owned());
        let cached = self.collections.get(&key);
        if let Some((since, collection)) = &cached
            && since.elapsed() < limits::COLLECTION_AGE_MAX
        {
            return Ok(collection.clone());
        }
        let row: Option<(Value, Json<BTreeMap<String, Merge>>)> = sqlx::query_as(
            "select json_schema, merge from meridian.collection where tenant = $1 and name = $2",
        )
        .bind(tenant)
        .bind(name)
        .fetch_optional(connection)
        .await?;
        let Some((json_schema, Json(merge))) = row else {
            self.collections.forget(&key);
            return Err(Fault::NotFound { what: "collection" });
        };
        let declaration = Declaration { name: name.to_owned(), json_schema, merge };
        let collection = match cached {
            Some((_, same)) if same.declaration == declaration => same,
            _ => Arc::new(Collection::new(declaration)?),
        };
        self.collections.put(key, collection.clone());
        Ok(collection)
    }

    /// All collections of the scope's tenant, by name.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn collections(&self, scope: &mut Scope) -> Result<Vec<Declaration>, Fault> {
        let (tenant, connection) = scope.split()?;
        let rows: Vec<Declared> = sqlx::query_as(
            "select name, json_schema, merge from meridian.collection where tenant = $1 order by name",
        )
        .bind(tenant)
        .fetch_all(connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(name, json_schema, Json(merge))| Declaration { name, json_schema, merge })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn orders() -> Collection {
        let declaration = json!({
            "name": "orders",
            "json_schema": {"type": "object", "required": ["status"], "properties": {
                "status": {"enum": ["open", "paid"]}, "stock": {"type": "integer"}}},
            "merge": {"stock": "counter", "status": "lww"}
        });
        Collection::new(serde_json::from_value(declaration).unwrap()).unwrap()
    }

    #[test]
    fn checks_records() {
        let orders = orders();
        let check = |value: Value| orders.check(value.as_object().unwrap());
        assert!(check(json!({"status": "open"})).is_ok());
        for (bad, path) in [
            (json!({"status": "lost"}), "/status"),
            (json!({}), ""),
            (json!({"status": "open", "id": "x"}), "/id"),
            (json!({"status": "open", "a b": 1}), "/a b"),
            (json!({"status": "open", "note": "\u{0}"}), ""),
        ] {
            match check(bad.clone()) {
                Err(Fault::Invalid(violations)) => assert_eq!(violations[0].path, path, "{bad}"),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ] {
            let declaration =
                Declaration { name: "orders".into(), json_schema: schema.clone(), merge: BTreeMap::new() };
            if let Ok(collection) = Collection::new(declaration) {
                let _ = collection.check(&Map::new());
            }
        }
    }

    #[test]
    fn refuses_bad_declarations() {
        for (name, schema) in [
            ("Orders", json!({})),
            ("", json!({})),
            ("orders", json!({"type": 7})),
            ("orders", json!({"$ref": "https://elsewhere.example/schema.json"})),
            ("orders", json!({"pattern": "("})),
        ] {
            let declaration = Declaration { name: name.into(), json_schema: schema, merge: BTreeMap::new() };
            assert!(matches!(Collection::new(declaration), Err(Fault::Declaration { .. })), "{name}");
        }
    }
}
