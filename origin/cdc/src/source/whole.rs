//! Rows that the log does not hold whole: large values that an update left as they were are read from the table.

use std::time::Instant;

use meridian_store::sqlx::{self, AssertSqlSafe, Row as _};

use super::{Stream, as_text, stamp};
use crate::capture::LogRelation;
use crate::decode::Value;
use crate::{Fault, limits};

impl Stream<'_> {
    /// Reads a row whole, because a large value of it is not in the log. It may be a later version: that one comes
    /// again in its turn, unless its tenant no longer allows the peer. A row that is gone, or may not go, needs nothing.
    ///
    /// A commit is in the log a moment before others see it, and longer where a synchronous standby is waited for: an
    /// earlier version is read again until it is this one.
    pub(super) async fn fetch(
        &mut self,
        relation: &LogRelation,
        row: &[Value<'_>],
    ) -> Result<Option<Vec<Option<String>>>, Fault> {
        let stamp = stamp(relation, |place| row.get(place).and_then(as_text))?;
        let deadline = Instant::now() + limits::VISIBLE_WAIT_MAX;
        loop {
            let Some(found) = self.fetch_now(relation, row).await? else { return Ok(None) };
            let text = |place: usize| found.get(place).and_then(Option::as_deref);
            if self::stamp(relation, text)? >= stamp {
                return Ok(Some(found));
            }
            if Instant::now() >= deadline {
                return Err(Fault::Unseen { table: relation.table.clone() });
            }
            tokio::time::sleep(limits::VISIBLE_ASK_INTERVAL).await;
        }
    }

    /// The version that is seen now.
    async fn fetch_now(
        &mut self,
        relation: &LogRelation,
        row: &[Value<'_>],
    ) -> Result<Option<Vec<Option<String>>>, Fault> {
        let Some(table) = self.catalogue.table(&relation.table) else { return Ok(None) };
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let columns: Vec<String> = relation.columns.iter().map(|c| format!("{}::text", quote(c))).collect();
        let keys: Vec<String> = table
            .keys
            .iter()
            .enumerate()
            .map(|(n, key)| format!("{}::text = ${}", quote(key), n + 1))
            .collect();
        let may_go = table.tenant_column.as_ref().map_or(String::new(), |tenant| {
            format!(
                " and (it.{tenant} is null or exists (select from meridian.tenant \
                 where slug = it.{tenant} and ${} = any(allowed_regions) and not _deleted))",
                table.keys.len() + 1,
                tenant = quote(tenant),
            )
        });
        let sql = format!(
            "select {} from meridian.{} it where {}{may_go}",
            columns.join(", "),
            quote(&relation.table),
            keys.join(" and ")
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for key in &table.keys {
            let value = relation.place(key).and_then(|place| row.get(place)).and_then(as_text);
            query = query.bind(value.map(str::to_owned));
        }
        if table.tenant_column.is_some() {
            query = query.bind(&self.peer.region);
        }
        let Some(found) = query.fetch_optional(&mut self.sql).await? else { return Ok(None) };
        let mut values = Vec::with_capacity(relation.columns.len());
        for place in 0..relation.columns.len() {
            values.push(found.try_get::<Option<String>, _>(place)?);
        }
        Ok(Some(values))
    }
}
