//! What a body becomes on its way to the client, the cache or both: copied for the cache, its HTML changed, then coded, as
//! its bytes come. One task does it all: what a component writes it can't read again as a body.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use meridian_content::{Coder, Rewriter};
use meridian_engine::node::Fetched;
use meridian_engine::policy::steering::Connection;
use meridian_engine::ruleset::{Coding, PageChanges};
use spin_sdk::time::sleep;
use spin_sdk::wasip3::spawn;

use crate::cache::Kept;
use crate::limits::{PAUSE_MS, PIECE_BYTES};
use crate::message::{self, Body, Content, Incoming, Outlet, SendFault};
use crate::shelf::{Reading, Shelving};
use crate::store::Store;

/// What becomes of a body.
pub struct Plan {
    /// Bytes that it may have as it comes, where they have to be counted.
    pub bytes_max: Option<u64>,
    /// Changes to its HTML.
    pub html: PageChanges,
    /// The coding that it gets.
    pub coding: Option<Coding>,
    /// The connection that it comes by, where those are counted.
    pub connection: Option<Connection>,
    /// What stores a copy of it as it came, before it ends: whoever has it whole finds it stored.
    pub keep: Option<(Store, Shelving)>,
    /// For the log.
    pub decision: String,
}

impl Plan {
    /// Whether the body that came will do.
    pub fn is_empty(&self) -> bool {
        self.bytes_max.is_none()
            && self.html.is_empty()
            && self.coding.is_none()
            && self.connection.is_none()
            && self.keep.is_none()
    }
}

/// The body that the client gets. One that does not come whole, or can't be changed to its end, breaks off, and the log
/// says why.
pub fn pass_on(content: Content, plan: Plan) -> Content {
    let source = match content {
        Content::Empty => Source { begun: Vec::new(), rest: Rest::None },
        Content::Bytes(bytes) => Source { begun: bytes, rest: Rest::None },
        Content::Stream(body) => Source { begun: Vec::new(), rest: Rest::Host(body) },
        Content::Begun(begun, rest) => Source { begun, rest: Rest::Host(rest) },
        Content::Shelved(reading) => Source { begun: Vec::new(), rest: Rest::Shelf(reading) },
    };
    let (outlet, through) = message::pipe();
    spawn(async move {
        let Plan { bytes_max, html, coding, connection, keep, decision } = plan;
        let (store, mut copy) = keep.unzip();
        let memory = copy.as_ref().map(Shelving::memory);
        let passed = match Work::new(bytes_max, html, coding) {
            Ok(work) => rework(source, Some(outlet), work, &mut copy).await,
            Err(fault) => Err(fault),
        };
        drop(connection);
        if let Err(fault) = &passed {
            eprintln!("decision {decision}: the body broke off: {fault}");
        }
        if let (Some(store), Some(memory)) = (store, memory) {
            store.write(&memory, kept(copy, passed.is_ok()).await).await;
        }
        if let Ok(Some(outlet)) = passed {
            outlet.finish(Ok(None)).await;
        }
    });
    Content::Stream(through)
}

/// A copy of a body that goes nowhere else, if it comes whole and is not too large.
pub async fn keep(response: Incoming, copy: Shelving) -> Result<Kept, Fetched> {
    let work = Work { bytes_left: response.bytes_max, rewriter: None, coder: None };
    let source = Source { begun: Vec::new(), rest: Rest::Host(response.body()) };
    let mut copy = Some(copy);
    let passed = rework(source, None, work, &mut copy).await;
    kept(copy, passed.is_ok()).await
}

/// What is left of a copy at the end of its body.
async fn kept(copy: Option<Shelving>, is_whole: bool) -> Result<Kept, Fetched> {
    match copy {
        Some(copy) if is_whole => copy.finish().await.ok_or(Fetched::NotForOthers),
        Some(mut copy) => {
            copy.give_up().await;
            Err(Fetched::Lost)
        }
        None => Err(Fetched::NotForOthers),
    }
}

/// Hands on all but the end of a body. `copy` takes what comes, unless that is more than is stored; a body that has no
/// `outlet` ends with its copy.
async fn rework(
    mut source: Source,
    mut outlet: Option<Outlet>,
    mut work: Work,
    copy: &mut Option<Shelving>,
) -> Result<Option<Outlet>, String> {
    loop {
        if outlet.is_none() && copy.is_none() {
            // Nobody is left who wants the rest.
            return Ok(None);
        }
        let Some(bytes) = next(&mut source, &mut outlet, &mut work).await? else { break };
        if let Err(fault) = work.count(bytes.len() as u64) {
            // The next one will be too long as well.
            if let Some(mut kept) = copy.take() {
                kept.give_up().await;
            }
            return Err(fault);
        }
        if let Some(kept) = copy
            && !kept.push(&bytes).await
        {
            *copy = None;
        }
        if let Some(outlet) = &mut outlet {
            outlet.write(work.push(bytes)?).await.map_err(text)?;
        }
    }
    if let Rest::Host(rest) = source.rest {
        rest.end().await.map_err(text)?;
    }
    if let Some(outlet) = &mut outlet {
        outlet.write(work.finish()?).await.map_err(text)?;
    }
    Ok(outlet)
}

/// The next bytes; what a coder holds back of those before goes on while they don't come.
async fn next(
    source: &mut Source,
    outlet: &mut Option<Outlet>,
    work: &mut Work,
) -> Result<Option<Vec<u8>>, String> {
    let mut next = pin!(source.next());
    if let (Some(outlet), Some(coder)) = (outlet, &mut work.coder) {
        match select(next.as_mut(), pin!(sleep(Duration::from_millis(PAUSE_MS)))).await {
            Either::Left((bytes, _)) => return bytes.map_err(text),
            Either::Right(_) => outlet.write(coder.flush().map_err(text)?).await.map_err(text)?,
        }
    }
    next.await.map_err(text)
}

fn text(fault: impl Display) -> String {
    fault.to_string()
}

/// Bytes that are here, and those that are elsewhere.
struct Source {
    begun: Vec<u8>,
    rest: Rest,
}

/// Where the rest of a body is.
enum Rest {
    None,
    Host(Body),
    Shelf(Reading),
}

impl Source {
    /// The next bytes, not too many at once; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, SendFault> {
        if self.begun.is_empty() {
            match &mut self.rest {
                Rest::None => return Ok(None),
                Rest::Host(rest) => return Ok(rest.chunk().await),
                Rest::Shelf(reading) => match reading.next().await? {
                    Some(chunk) => self.begun = chunk,
                    None => return Ok(None),
                },
            }
        }
        let later = self.begun.split_off(PIECE_BYTES.min(self.begun.len()));
        Ok(Some(std::mem::replace(&mut self.begun, later)))
    }
}

/// What is done to the bytes.
struct Work {
    /// How many more may come.
    bytes_left: Option<u64>,
    rewriter: Option<Rewriter>,
    coder: Option<Coder>,
}

impl Work {
    fn new(bytes_left: Option<u64>, html: PageChanges, coding: Option<Coding>) -> Result<Self, String> {
        let rewriter = (!html.is_empty()).then(|| Rewriter::new(html)).transpose().map_err(text)?;
        Ok(Self { bytes_left, rewriter, coder: coding.map(Coder::new) })
    }

    fn count(&mut self, bytes: u64) -> Result<(), String> {
        if let Some(left) = &mut self.bytes_left {
            *left = left.checked_sub(bytes).ok_or("it is longer than its upstream's responses may be")?;
        }
        Ok(())
    }

    fn push(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let page = match &mut self.rewriter {
            Some(rewriter) => rewriter.push(&bytes).map_err(text)?,
            None => bytes,
        };
        match &mut self.coder {
            Some(coder) => coder.push(&page).map_err(text),
            None => Ok(page),
        }
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        let end = self.rewriter.map_or_else(|| Ok(Vec::new()), Rewriter::finish).map_err(text)?;
        let Some(mut coder) = self.coder else { return Ok(end) };
        let mut coded = coder.push(&end).map_err(text)?;
        coded.extend(coder.finish().map_err(text)?);
        Ok(coded)
    }
}
