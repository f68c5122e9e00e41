//! Where requests come in.

use std::time::Instant;

use meridian_engine::exchange::Exchange;
use meridian_engine::facts::BodySize;
use meridian_engine::headers::Headers;
use meridian_engine::problem::Problem;
use meridian_engine::refusal::Refusal;
use meridian_wire::event::Seen;
use spin_sdk::wasip3;
use spin_sdk::wasip3::http::types::{ErrorCode, Request, Response};

use crate::facts::{Sources, gather};
use crate::forward::RequestBody;
use crate::instance::{Memory, now_ms, random};
use crate::message::{self, Content};
use crate::perform::{Passage, fields};

struct Edge;

wasip3::http::service::export!(Edge);

impl wasip3::exports::http::handler::Guest for Edge {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        #[cfg(feature = "corpus")]
        if request.get_path_with_query().as_deref() == Some("/.corpus") {
            return corpus(request).await;
        }
        answer(request).await
    }
}

/// Runs a case of the decision corpus, with the signature checks of this host.
#[cfg(feature = "corpus")]
async fn corpus(request: Request) -> Result<Response, ErrorCode> {
    let input = message::request_body(request).bytes(meridian_corpus::CASE_BYTES_MAX).await;
    let input = input.map_err(|fault| ErrorCode::InternalError(Some(fault.to_string())))?;
    let verify =
        async |asked: &meridian_engine::step::Verify, _| meridian_wire::signature::verify_token(asked);
    let rewrite = async |changes: meridian_engine::ruleset::PageChanges, page: Vec<u8>| {
        meridian_content::rewrite_whole(changes, &page).ok()
    };
    let outcome = meridian_corpus::run(&input, verify, rewrite).await;
    let fields = [("content-type".to_owned(), b"application/json".to_vec())];
    message::response(200, &fields, Content::Bytes(outcome))
        .map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))
}

async fn answer(request: Request) -> Result<Response, ErrorCode> {
    let (started, random) = (Instant::now(), random());
    let head = message::head(&request);
    let refuse = |now_ms: u64, title: &'static str, why: &str, headers: &Headers| {
        let problem = Problem::new(500, "internal", title);
        let refusal = Refusal::new(&problem, headers, now_ms, random, started.elapsed());
        eprintln!("decision {}: {title}: {why}", refusal.decision);
        message::response(refusal.status, &fields(&refusal.headers), Content::Bytes(refusal.body))
            .map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))
    };
    let memory = match Memory::get().await {
        Ok(memory) => memory,
        Err(error) => {
            let text = |(name, value): &(String, Vec<u8>)| {
                (name.clone(), String::from_utf8_lossy(value).into_owned())
            };
            let headers = head.fields.iter().map(text).collect();
            return refuse(now_ms(), "The edge is not configured", &error.to_string(), &headers);
        }
    };
    let body = match head.has_body() {
        Some(true) => RequestBody::Unread(request),
        Some(false) => RequestBody::None,
        None => body_without_length(request).await,
    };
    // Not before the body: a client that lets it wait would choose the time that is decided by.
    let now_ms = now_ms();
    let sources = Sources {
        trusted_proxies: &memory.config.trusted_proxies,
        places: memory.places.as_ref(),
        now_ms,
        random,
    };
    let facts = gather(head, !matches!(body, RequestBody::None), &sources);
    #[cfg(feature = "fault-injection")]
    meridian_corpus::fault::inject(&facts.path, async |ms| {
        spin_sdk::time::sleep(std::time::Duration::from_millis(ms.into())).await;
    })
    .await;
    let (body, length) = match facts.body {
        BodySize::Empty => (RequestBody::None, None),
        BodySize::Bytes(bytes) => (body, Some(bytes)),
        BodySize::Unknown => (body, None),
    };
    let seen = Seen::of(&facts);
    let (exchange, step) = Exchange::begin(&mut memory.node.borrow_mut(), facts);
    let mut passage = Passage::new(memory, body, length);
    let reply = passage.drive(exchange, step).await;
    let trace: Headers =
        reply.headers.get("traceparent").map(|trace| ("traceparent", trace)).into_iter().collect();
    passage
        .respond(reply, seen)
        .or_else(|error| refuse(now_ms, "The reply can't be sent", &format!("{error:?}"), &trace))
}

/// A body whose length the head does not tell, if there is one: that shows with its first bytes.
async fn body_without_length(request: Request) -> RequestBody {
    let mut body = message::request_body(request);
    match body.chunk().await {
        Some(bytes) => RequestBody::Begun(bytes, body),
        None => match body.end().await {
            Ok(()) => RequestBody::None,
            Err(fault) => RequestBody::Failed(fault.of_client()),
        },
    }
}
