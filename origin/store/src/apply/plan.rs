//! How the rows of each table are written: its columns, its statements and the tags that they purge.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use meridian_replica::conflict::Version;
use meridian_replica::{Region, Stamp};
use sqlx::PgConnection;

use super::whole;
use crate::Fault;

/// The enrolled tables of this region.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    tables: HashMap<String, Table>,
}

/// An enrolled table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name within the schema `meridian`.
    pub name: String,
    /// The column that holds the tenant's slug; none for tables of the platform.
    pub tenant_column: Option<String>,
    /// Its primary key.
    pub keys: Vec<String>,
    /// Columns and their types, in order.
    pub columns: Vec<(String, String)>,
}

/// Why rows of a table can't be written here yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The table is not enrolled here.
    #[error("table {table} is not enrolled here")]
    Table {
        /// Its name.
        table: String,
        /// The columns that its rows come with.
        columns: Vec<String>,
    },
    /// A column is not here.
    #[error("table {table} has no column {column} here")]
    Column {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The columns that its rows come with.
        columns: Vec<String>,
    },
}

impl Unknown {
    pub(super) fn parts(&self) -> (&str, &[String], &'static str) {
        match self {
            Unknown::Table { table, columns } => (table, columns, "unknown_table"),
            Unknown::Column { table, columns, .. } => (table, columns, "unknown_column"),
        }
    }
}

impl Catalogue {
    /// Reads which tables are enrolled, and their columns.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when the database is away.
    pub async fn load(connection: &mut PgConnection) -> Result<Self, Fault> {
        type Row = (String, Option<String>, Vec<String>, Vec<String>, Vec<String>);
        let rows: Vec<Row> = sqlx::query_as(
            "select e.table_name, e.tenant_column, e.key_columns,
                    array_agg(a.attname::text order by a.attnum),
                    array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum)
               from meridian.enrolled e
               join pg_class c on c.relname = e.table_name and c.relnamespace = 'meridian'::regnamespace
               join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                                  and a.attgenerated = ''
              group by 1, 2, 3",
        )
        .fetch_all(connection)
        .await?;
        let tables = rows.into_iter().map(|(name, tenant_column, keys, columns, types)| {
            let columns = columns.into_iter().zip(types).collect();
            (name.clone(), Table { name, tenant_column, keys, columns })
        });
        Ok(Self { tables: tables.collect() })
    }

    /// The enrolled tables, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// One table.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }
}

/// How rows of one table, with columns in one order, are written. Made once, used for every batch.
#[derive(Debug)]
pub struct Plan {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    pub(super) keys: Vec<usize>,
    pub(super) tenant: Option<usize>,
    pub(super) record: Option<RecordColumns>,
    stamp: usize,
    pub(super) region: usize,
    pub(super) base_stamp: usize,
    pub(super) base_region: usize,
    pub(super) deleted: usize,
    /// The table, its key and all columns as text, for statements of a single use.
    pub(super) name: String,
    pub(super) key_list: String,
    pub(super) texts: String,
    /// Gives rows that arrived the types that they have here.
    pub(super) typed: String,
    /// Takes rows that are new here, or newer than what is here.
    pub(super) upsert: Arc<str>,
    /// Does the same and all the rest of a transaction, or nothing.
    pub(super) whole: Arc<str>,
    /// Locks and reads the rows that are here.
    pub(super) select: Arc<str>,
    /// Writes over rows that are here.
    pub(super) update: Arc<str>,
    /// Writes rows that are not here.
    pub(super) insert: Arc<str>,
    /// Writes merging fields of a record that otherwise stays.
    pub(super) join: Arc<str>,
}

/// Places of a record's own columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordColumns {
    pub(super) collection: usize,
    pub(super) id: usize,
    pub(super) fields: usize,
    pub(super) merge: usize,
}

impl Plan {
    /// Plans for rows of `table` that come with `columns`.
    ///
    /// # Errors
    /// [`Unknown`] when the table or a column is not here, or a column that replication needs does not come.
    pub fn new(catalogue: &Catalogue, table: &str, columns: &[&str]) -> Result<Self, Unknown> {
        let owned = || columns.iter().map(|&column| column.to_owned()).collect();
        let known = catalogue
            .table(table)
            .ok_or_else(|| Unknown::Table { table: table.to_owned(), columns: owned() })?;
        let missing = |column: &str| Unknown::Column {
            table: table.to_owned(),
            column: column.to_owned(),
            columns: owned(),
        };
        let mut types = Vec::with_capacity(columns.len());
        for &column in columns {
            let found =
                known.columns.iter().find(|(name, _)| name == column).ok_or_else(|| missing(column))?;
            types.push(found.1.as_str());
        }
        let place = |column: &str| columns.iter().position(|&c| c == column).ok_or_else(|| missing(column));
        let keys = known.keys.iter().map(|key| place(key)).collect::<Result<Vec<_>, _>>()?;
        let record = match table {
            "record" => Some(RecordColumns {
                collection: place("collection")?,
                id: place("id")?,
                fields: place("fields")?,
                merge: place("merge")?,
            }),
            _ => None,
        };
        let sql = Sql { table, columns, types: &types, keys: &keys, record: record.is_some() };
        Ok(Self {
            table: table.to_owned(),
            columns: owned(),
            tenant: known.tenant_column.as_deref().map(place).transpose()?,
            record,
            stamp: place("_stamp")?,
            region: place("_region")?,
            base_stamp: place("_base_stamp")?,
            base_region: place("_base_region")?,
            deleted: place("_deleted")?,
            name: sql.name(),
            key_list: sql.list(keys.iter().copied(), ", ", |column, _| column.to_owned()),
            texts: sql.list(sql.all(), ", ", |column, _| format!("{column}::text")),
            typed: sql.typed(),
            upsert: sql.upsert().into(),
            whole: whole::statement(&sql.upsert(), columns.len()).into(),
            select: sql.select().into(),
            update: sql.update().into(),
            insert: sql.insert().into(),
            join: sql.join().into(),
            keys,
        })
    }

    /// The version of a row; `None` when its stamp columns can't be read.
    pub(super) fn version(&self, values: &[Option<&str>]) -> Option<Version> {
        let number = |place: usize| values.get(place).copied().flatten()?.parse::<i64>().ok();
        let stamp = |time: usize, region: usize| {
            Some(Stamp::new(u64::try_from(number(time)?).ok()?, Region(u16::try_from(number(region)?).ok()?)))
        };
        Some(Version {
            stamp: stamp(self.stamp, self.region)?,
            base: stamp(self.base_stamp, self.base_region)?,
            deleted: values.get(self.deleted).copied().flatten()?.starts_with('t'),
        })
    }

    /// Columns that say which row it is and whose: never changed to settle a clash.
    pub(super) fn fixed(&self) -> Vec<&str> {
        let places = self.keys.iter().chain(&self.tenant);
        places.filter_map(|&place| self.columns.get(place)).map(String::as_str).collect()
    }

    pub(super) fn tenant_of<'a>(&self, values: &[Option<&'a str>]) -> Option<&'a str> {
        self.tenant.and_then(|place| values.get(place).copied().flatten())
    }
}

/// The cache tags of a row, with its tenant: a record's collection and its own, a collection's own.
#[must_use]
pub fn tags<'a>(
    table: &str,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Option<(&'a str, &'a str, Option<String>)> {
    match table {
        "record" => {
            let collection = value("collection")?;
            Some((value("tenant")?, collection, Some(format!("{collection}/{}", value("id")?))))
        }
        "collection" => Some((value("tenant")?, value("name")?, None)),
        _ => None,
    }
}

/// Writes the statements of a plan. Values come as arrays of text, one for each column, and are cast to the types
/// that the columns have here.
struct Sql<'a> {
    table: &'a str,
    columns: &'a [&'a str],
    types: &'a [&'a str],
    keys: &'a [usize],
    record: bool,
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Sql<'_> {
    fn list(
        &self,
        places: impl Iterator<Item = usize>,
        separator: &str,
        item: impl Fn(&str, &str) -> String,
    ) -> String {
        let mut list = String::new();
        for place in places {
            if !list.is_empty() {
                list.push_str(separator);
            }
            if let (Some(column), Some(kind)) = (self.columns.get(place), self.types.get(place)) {
                list.push_str(&item(&identifier(column), kind));
            }
        }
        list
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.columns.len()
    }

    fn others(&self) -> impl Iterator<Item = usize> + '_ {
        self.all().filter(|place| !self.keys.contains(place))
    }

    fn name(&self) -> String {
        format!("meridian.{}", identifier(self.table))
    }

    /// `unnest($1::text[], …) … x(columns)`
    fn values(&self, places: &[usize], ordinality: bool) -> String {
        let mut arrays = String::new();
        for number in 1..=places.len() {
            let _ = write!(arrays, "{}${number}::text[]", if number > 1 { ", " } else { "" });
        }
        let columns = self.list(places.iter().copied(), ", ", |column, _| column.to_owned());
        let (with, ord) = if ordinality { (" with ordinality", ", ord") } else { ("", "") };
        format!("unnest({arrays}){with} x({columns}{ord})")
    }

    fn matches(&self) -> String {
        self.list(self.keys.iter().copied(), " and ", |column, kind| {
            format!("t.{column} = x.{column}::{kind}")
        })
    }

    fn typed(&self) -> String {
        let all: Vec<usize> = self.all().collect();
        let columns = self.list(self.all(), ", ", |column, kind| format!("x.{column}::{kind} as {column}"));
        format!("select {columns} from {}", self.values(&all, false))
    }

    fn insert_start(&self) -> String {
        format!(
            "insert into {} as t ({}) {} on conflict ({}) ",
            self.name(),
            self.list(self.all(), ", ", |column, _| column.to_owned()),
            self.typed(),
            self.list(self.keys.iter().copied(), ", ", |column, _| column.to_owned()),
        )
    }

    fn upsert(&self) -> String {
        // A record with merging fields is always looked at: its states must join.
        let plain = if self.record { " and t.merge = '{}'" } else { "" };
        format!(
            "{}do update set {} where (t._stamp, t._region) <= (excluded._base_stamp, excluded._base_region){plain}",
            self.insert_start(),
            self.list(self.others(), ", ", |column, _| format!("{column} = excluded.{column}")),
        )
    }

    fn insert(&self) -> String {
        format!("{}do nothing", self.insert_start())
    }

    fn select(&self) -> String {
        format!(
            "select x.ord, to_jsonb(t) from {} join {} t on {} order by x.ord for update of t",
            self.values(self.keys, true),
            self.name(),
            self.matches()
        )
    }

    fn update(&self) -> String {
        let all: Vec<usize> = self.all().collect();
        format!(
            "update {} t set {} from {} where {}",
            self.name(),
            self.list(self.others(), ", ", |column, kind| format!("{column} = x.{column}::{kind}")),
            self.values(&all, false),
            self.matches()
        )
    }

    fn join(&self) -> String {
        if !self.record {
            return String::new();
        }
        let keys = self.keys.len();
        format!(
            "update {} t set fields = t.fields || x.fields::jsonb, merge = x.merge::jsonb
               from unnest({}) x({}, fields, merge) where {}",
            self.name(),
            (1..=keys + 2).map(|number| format!("${number}::text[]")).collect::<Vec<_>>().join(", "),
            self.list(self.keys.iter().copied(), ", ", |column, _| column.to_owned()),
            self.matches()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Catalogue {
        let text = |name: &str| (name.to_owned(), "text".to_owned());
        let mut columns = vec![text("hostname"), text("tenant")];
        for meta in ["_stamp", "_region", "_base_stamp", "_base_region", "_deleted"] {
            columns.push((meta.to_owned(), "bigint".to_owned()));
        }
        let table = Table {
            name: "domain".into(),
            tenant_column: Some("tenant".into()),
            keys: vec!["hostname".into()],
            columns,
        };
        Catalogue { tables: HashMap::from([("domain".to_owned(), table)]) }
    }

    const COLUMNS: [&str; 7] =
        ["tenant", "hostname", "_stamp", "_region", "_base_stamp", "_base_region", "_deleted"];

    #[test]
    fn says_what_is_unknown() {
        let unknown =
            |table: &str, columns: &[&str]| Plan::new(&catalogue(), table, columns).unwrap_err().to_string();
        assert_eq!(unknown("nowhere", &COLUMNS), "table nowhere is not enrolled here");
        assert_eq!(unknown("domain", &["hostname", "colour"]), "table domain has no column colour here");
        assert_eq!(unknown("domain", &["hostname", "tenant"]), "table domain has no column _stamp here");
    }

    #[test]
    fn reads_versions_and_tenants() {
        let plan = Plan::new(&catalogue(), "domain", &COLUMNS).unwrap();
        let values =
            [Some("acme"), Some("a.example"), Some("655360"), Some("2"), Some("5"), Some("1"), Some("t")];
        let version = plan.version(&values).unwrap();
        assert_eq!(version.stamp, Stamp::new(655_360, Region(2)));
        assert_eq!(version.base, Stamp::new(5, Region(1)));
        assert!(version.deleted);
        assert_eq!(plan.tenant_of(&values), Some("acme"));
        assert!(plan.version(&[None; 7]).is_none());
        assert!(
            plan.upsert.contains("on conflict (\"hostname\") do update set \"tenant\" = excluded.\"tenant\"")
        );
    }
}
