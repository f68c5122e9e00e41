//! What a body becomes on its way to the client: copied for the cache, its HTML changed, then coded, as its bytes come.
//! One task does it all: what a component writes it can't read again as a body.

use std::fmt::Display;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use meridian_content::{Coder, Rewriter};
use meridian_engine::ruleset::{Coding, HtmlEdit};
use spin_sdk::time::sleep;
use spin_sdk::wasip3::spawn;

use crate::instance::Memory;
use crate::limits::{CACHE_BODY_BYTES_MAX, PAUSE_MS, PIECE_BYTES};
use crate::message::{self, Body, Content, Outlet};
use crate::store::Store;

/// What becomes of a body.
pub struct Plan {
    /// Changes to its HTML.
    pub html: Vec<HtmlEdit>,
    /// The coding that it gets.
    pub coding: Option<Coding>,
    /// What stores a copy of it as it came, before it ends: whoever has it whole finds it stored.
    pub keep: Option<(Store, Rc<Memory>)>,
    /// For the log.
    pub decision: String,
}

impl Plan {
    /// Whether the body that came will do.
    pub fn is_empty(&self) -> bool {
        self.html.is_empty() && self.coding.is_none() && self.keep.is_none()
    }
}

/// The body that the client gets. One that does not come whole, or can't be changed to its end, breaks off, and the log
/// says why.
pub fn pass_on(content: Content, plan: Plan) -> Content {
    let source = match content {
        Content::Empty => Source { begun: Vec::new(), rest: None },
        Content::Bytes(bytes) => Source { begun: bytes, rest: None },
        Content::Stream(body) => Source { begun: Vec::new(), rest: Some(body) },
        Content::Begun(begun, rest) => Source { begun, rest: Some(rest) },
    };
    let (outlet, through) = message::pipe();
    spawn(async move {
        let Plan { html, coding, keep, decision } = plan;
        let mut copy = keep.is_some().then(Vec::new);
        let passed = rework(source, outlet, html, coding, &mut copy).await;
        if let Err(fault) = &passed {
            eprintln!("decision {decision}: the body broke off: {fault}");
        }
        if let Some((store, memory)) = keep {
            store.write(&memory, copy.filter(|_| passed.is_ok())).await;
        }
        if let Ok(outlet) = passed {
            outlet.finish(Ok(None)).await;
        }
    });
    Content::Stream(through)
}

/// Hands on all but the end of a body. `copy` takes what comes, unless that is more than is stored.
async fn rework(
    mut source: Source,
    mut outlet: Outlet,
    html: Vec<HtmlEdit>,
    coding: Option<Coding>,
    copy: &mut Option<Vec<u8>>,
) -> Result<Outlet, String> {
    let mut work = Work {
        rewriter: (!html.is_empty()).then(|| Rewriter::new(html)).transpose().map_err(text)?,
        coder: coding.map(Coder::new),
    };
    loop {
        let next = {
            let mut next = pin!(source.next());
            match select(next.as_mut(), pin!(sleep(Duration::from_millis(PAUSE_MS)))).await {
                Either::Left((bytes, _)) => bytes,
                Either::Right(_) => {
                    outlet.write(work.pause()?).await.map_err(text)?;
                    next.await
                }
            }
        };
        let Some(bytes) = next else { break };
        *copy = copy.take().filter(|copy| (copy.len() + bytes.len()) as u64 <= CACHE_BODY_BYTES_MAX);
        if let Some(copy) = copy {
            copy.extend_from_slice(&bytes);
        }
        outlet.write(work.push(bytes)?).await.map_err(text)?;
    }
    if let Some(rest) = source.rest {
        rest.end().await.map_err(text)?;
    }
    outlet.write(work.finish()?).await.map_err(text)?;
    Ok(outlet)
}

fn text(fault: impl Display) -> String {
    fault.to_string()
}

/// Bytes that are here, and those that are still with the host.
struct Source {
    begun: Vec<u8>,
    rest: Option<Body>,
}

impl Source {
    /// The next bytes, not too many at once.
    async fn next(&mut self) -> Option<Vec<u8>> {
        if self.begun.is_empty() {
            return match &mut self.rest {
                Some(rest) => rest.chunk().await,
                None => None,
            };
        }
        let later = self.begun.split_off(PIECE_BYTES.min(self.begun.len()));
        Some(std::mem::replace(&mut self.begun, later))
    }
}

/// What is done to the bytes.
struct Work {
    rewriter: Option<Rewriter>,
    coder: Option<Coder>,
}

impl Work {
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

    fn pause(&mut self) -> Result<Vec<u8>, String> {
        self.coder.as_mut().map_or_else(|| Ok(Vec::new()), |coder| coder.flush().map_err(text))
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        let end = self.rewriter.map_or_else(|| Ok(Vec::new()), Rewriter::finish).map_err(text)?;
        let Some(mut coder) = self.coder else { return Ok(end) };
        let mut coded = coder.push(&end).map_err(text)?;
        coded.extend(coder.finish().map_err(text)?);
        Ok(coded)
    }
}
