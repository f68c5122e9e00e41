//! What an edge keeps of bundles on disk, for tests that put something else there while the edge is stopped.
//!
//! On workerd it is a file of the KV simulator: ticket, line feed, bundle. In the Spin host it is a file of its key-value
//! store: the key's length (4 bytes, little-endian), the key, and likewise the ticket's length, the ticket, the bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use meridian_wire::encoding::from_base64url;
use serde_json::Value;

use crate::proxy::Bundle;

/// The entry of one target in the memory of one edge.
pub struct Kept {
    file: PathBuf,
    edge: String,
    /// What stands before the ticket.
    head: Vec<u8>,
}

impl Kept {
    /// Finds the entry of a target in the state folder of an edge (`cloudflare` or `spin`).
    pub fn find(edge: &str, state: &Path, target: &str) -> Result<Self> {
        let folder = match edge {
            "cloudflare" => state.join("kv/bundles/blobs"),
            // Stores are in folders named by their labels in hexadecimal: this is `default`.
            _ => state.join("key-value/64656661756c74"),
        };
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let file = entry?.path();
            let content = std::fs::read(&file)?;
            let Some((head, bundle)) = parse(edge, &content) else { continue };
            if claims(&bundle.ticket).is_some_and(|claims| claims["target"] == target) {
                return Ok(Self { head: head.to_vec(), edge: edge.to_owned(), file });
            }
        }
        bail!("{} keeps no bundle of {target}", folder.display())
    }

    /// What is there.
    pub fn bundle(&self) -> Result<Bundle> {
        let content = std::fs::read(&self.file)?;
        let (_, bundle) = parse(&self.edge, &content).context("what the edge keeps is no bundle")?;
        Ok(bundle)
    }

    /// Puts something else there. The edge must not be running.
    pub fn plant(&self, bundle: &Bundle) -> Result<()> {
        let between = match self.edge.as_str() {
            "cloudflare" => [bundle.ticket.as_bytes(), b"\n"].concat(),
            _ => [&u32::try_from(bundle.ticket.len())?.to_le_bytes()[..], bundle.ticket.as_bytes()].concat(),
        };
        std::fs::write(&self.file, [&self.head[..], &between, &bundle.bytes].concat())?;
        Ok(())
    }
}

/// What stands before an entry's ticket, and the entry.
fn parse<'a>(edge: &str, content: &'a [u8]) -> Option<(&'a [u8], Bundle)> {
    let (head, ticket, bytes) = if edge == "cloudflare" {
        let end = content.iter().position(|byte| *byte == b'\n')?;
        (&content[..0], &content[..end], &content[end + 1..])
    } else {
        let (key, value) = counted(content)?;
        let (ticket, bytes) = counted(value)?;
        (&content[..4 + key.len()], ticket, bytes)
    };
    let ticket = String::from_utf8(ticket.to_vec()).ok()?;
    Some((head, Bundle { ticket, bytes: bytes.to_vec() }))
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// What a ticket says, whoever signed it.
fn claims(ticket: &str) -> Option<Value> {
    serde_json::from_slice(&from_base64url(ticket.split('.').nth(1)?)?).ok()
}
