//! Where requests come in.

use meridian_engine::decision::decision_id;
use meridian_engine::exchange::Exchange;
use meridian_engine::facts::BodySize;
use meridian_engine::problem::{MEDIA_TYPE, Problem};
use meridian_wire::event::Seen;
use spin_sdk::wasip3;
use spin_sdk::wasip3::http::types::{ErrorCode, Request, Response};

use crate::facts::{Sources, gather};
use crate::instance::{Memory, now_ms, random};
use crate::message::{self, Content};
use crate::perform::{Passage, RequestBody};

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
    let outcome = meridian_corpus::run(&input, verify).await;
    let fields = [("content-type".to_owned(), b"application/json".to_vec())];
    message::response(200, &fields, Content::Bytes(outcome))
        .map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))
}

async fn answer(request: Request) -> Result<Response, ErrorCode> {
    let (now_ms, random) = (now_ms(), random());
    let id = decision_id(now_ms, random);
    let memory = match Memory::get().await {
        Ok(memory) => memory,
        Err(error) => {
            eprintln!("the edge is not configured: {error}");
            return refuse(&id, Problem::new(500, "internal", "The edge is not configured"));
        }
    };
    let sources = Sources {
        trusted_proxies: &memory.config.trusted_proxies,
        places: memory.places.as_ref(),
        now_ms,
        random,
    };
    let facts = match gather(message::head(&request), &sources) {
        Ok(facts) => facts,
        Err(error) => {
            let problem = Problem::new(400, "bad-request", "The request can't be read");
            return refuse(&id, problem.detail(error.to_string()));
        }
    };
    let (body, length) = match facts.body {
        BodySize::Empty => (RequestBody::None, None),
        BodySize::Bytes(bytes) => (RequestBody::Unread(request), Some(bytes)),
        BodySize::Unknown => (RequestBody::Unread(request), None),
    };
    let seen = Seen {
        at_ms: now_ms,
        method: facts.method.clone(),
        host: facts.host.clone(),
        path: facts.path.clone(),
        country: facts.place.country.clone(),
        elapsed_ms: 0,
    };
    let (exchange, step) = Exchange::begin(&mut memory.node.borrow_mut(), facts);
    let mut passage = Passage::new(memory, body, length);
    let reply = passage.drive(exchange, step).await;
    let decision = reply.decision.id.clone();
    passage.respond(reply, seen).or_else(|error| {
        eprintln!("the reply of decision {decision} can't be sent: {error:?}");
        refuse(&decision, Problem::new(500, "internal", "The reply can't be sent"))
    })
}

/// A reply that no rule had a part in.
fn refuse(decision: &str, problem: Problem) -> Result<Response, ErrorCode> {
    let body = problem.body(decision);
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let fields = [
        field("content-type", MEDIA_TYPE),
        field("content-length", &body.len().to_string()),
        field("cache-control", "no-store"),
        field("meridian-decision", decision),
        field("meridian-region", "edge"),
        field("meridian-bundle", "none"),
    ];
    message::response(problem.status, &fields, Content::Bytes(body))
        .map_err(|error| ErrorCode::InternalError(Some(format!("{error:?}"))))
}
