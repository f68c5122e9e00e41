//! A function that the tests push: it passes requests on, and misbehaves where the field `x-do` of a request says so.
//!
//! What it passes on gets the field `x-function`, and so does the response, whose body it begins with its version.
#![cfg(target_family = "wasm")]

use std::hint::black_box;

use wasip3::clocks::monotonic_clock::{now, wait_for};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::StreamResult;
use wasip3::{wit_future, wit_stream};

/// The tests make another version of the component by another text of the same length in its bytes.
const VERSION: &str = "probe-version-1";

struct Probe;

wasip3::http::service::export!(Probe);

impl wasip3::exports::http::handler::Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let fields = request.get_headers();
        let said = |name: &str| {
            let value = fields.get(name).into_iter().next().unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        match said("x-do").as_str() {
            "answer" => answer(&format!("{VERSION} answers by itself")),
            "loop" => compute(),
            "memory" => hoard(),
            "trap" => panic!("on command"),
            "error" => Err(ErrorCode::InternalError(Some("on command".to_owned()))),
            "slow" => {
                wait_for(60_000_000_000).await;
                pass(request).await
            }
            "patient" => {
                for _ in 0..30 {
                    wait_for(20_000_000).await;
                }
                pass(request).await
            }
            "bursts" => loop {
                let begun = now();
                while now() - begun < 5_000_000 {}
                wait_for(1_000_000).await;
            },
            "late-trap" => {
                pass(request).await?;
                panic!("after it was sent on")
            }
            "twice" => {
                let first = send(&like(&request, None, None)).await;
                let second = send(&like(&request, None, None)).await;
                answer(&format!("{first}, {second}"))
            }
            "elsewhere" => answer(&send(&like(&request, Some(&said("x-to")), None)).await),
            "path" => answer(&send(&like(&request, None, Some("/other"))).await),
            "look" => answer(&seen(&fields)),
            "loop-in-body" => begin(compute),
            "memory-in-body" => begin(hoard),
            _ => pass(request).await,
        }
    }
}

/// Computes for ever.
fn compute() -> ! {
    loop {
        black_box(());
    }
}

/// Takes memory for ever.
fn hoard() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![1; 1 << 20]));
    }
}

/// What it has beside the request: all of this should be nothing.
fn seen(fields: &Fields) -> String {
    let own =
        fields.copy_all().into_iter().filter(|(name, _)| name.starts_with("meridian-") || name == "cdn-loop");
    let own: Vec<String> = own.map(|(name, _)| name).collect();
    let environment = std::env::vars().count();
    let files = std::fs::read_dir("/").map_or_else(|_| "no".to_owned(), |files| files.count().to_string());
    format!("fields {own:?}, {environment} variables, {files} files")
}

/// A request without a body like this one, to another authority or another path.
fn like(request: &Request, authority: Option<&str>, path: Option<&str>) -> Made {
    let scheme = request.get_scheme().unwrap_or(Scheme::Http);
    let own = request.get_authority().unwrap_or_default();
    let target = request.get_path_with_query().unwrap_or_default();
    Made {
        scheme,
        authority: authority.unwrap_or(&own).to_owned(),
        target: path.unwrap_or(&target).to_owned(),
    }
}

/// A request to make.
struct Made {
    scheme: Scheme,
    authority: String,
    target: String,
}

async fn send(made: &Made) -> String {
    let (request, _) = Request::new(Fields::new(), None, wit_future::new(|| Ok(None)).1, None);
    let set = request
        .set_scheme(Some(&made.scheme))
        .and_then(|()| request.set_authority(Some(&made.authority)))
        .and_then(|()| request.set_path_with_query(Some(&made.target)));
    if set.is_err() {
        return "not made".to_owned();
    }
    match client::send(request).await {
        Ok(response) => response.get_status_code().to_string(),
        Err(error) => format!("{error:?}"),
    }
}

/// Sends the request on, and begins the response's body with the version.
async fn pass(request: Request) -> Result<Response, ErrorCode> {
    let (method, scheme) = (request.get_method(), request.get_scheme());
    let (authority, target) = (request.get_authority(), request.get_path_with_query());
    let fields = Fields::from_list(&request.get_headers().copy_all()).map_err(odd)?;
    fields.set("x-function", &[VERSION.as_bytes().to_vec()]).map_err(odd)?;
    let has_body = fields.has("content-length") || !matches!(method, Method::Get | Method::Head);
    let (body, trailers) = Request::consume_body(request, wit_future::new(|| Ok(())).1);
    let (onward, _) = Request::new(fields, has_body.then_some(body), trailers, None);
    let set = onward
        .set_method(&method)
        .and_then(|()| onward.set_scheme(scheme.as_ref()))
        .and_then(|()| onward.set_authority(authority.as_deref()))
        .and_then(|()| onward.set_path_with_query(target.as_deref()));
    set.map_err(odd)?;
    let response = client::send(onward).await?;
    let status = response.get_status_code();
    let fields = Fields::from_list(&response.get_headers().copy_all()).map_err(odd)?;
    fields.delete("content-length").map_err(odd)?;
    fields.set("x-function", &[VERSION.as_bytes().to_vec()]).map_err(odd)?;
    let (mut body, trailers) = Response::consume_body(response, wit_future::new(|| Ok(())).1);
    let (mut writer, stream) = wit_stream::new();
    wasip3::spawn(async move {
        let mut next = format!("{VERSION}: ").into_bytes();
        loop {
            if !writer.write_all(next).await.is_empty() {
                return;
            }
            let (result, bytes) = body.read(Vec::with_capacity(16 * 1024)).await;
            if bytes.is_empty() && !matches!(result, StreamResult::Complete(_)) {
                return;
            }
            next = bytes;
        }
    });
    let (response, _) = Response::new(fields, Some(stream), trailers);
    response.set_status_code(status).map_err(odd)?;
    Ok(response)
}

fn answer(text: &str) -> Result<Response, ErrorCode> {
    let (mut writer, stream) = wit_stream::new();
    let text = text.as_bytes().to_vec();
    wasip3::spawn(async move {
        // What nobody reads is nobody's loss.
        let _ = writer.write_all(text).await;
    });
    let (response, _) = Response::new(Fields::new(), Some(stream), wit_future::new(|| Ok(None)).1);
    Ok(response)
}

/// A response whose body begins; the function then does this.
fn begin(then: fn() -> !) -> Result<Response, ErrorCode> {
    let (mut writer, stream) = wit_stream::new();
    wasip3::spawn(async move {
        let _ = writer.write_all(VERSION.as_bytes().to_vec()).await;
        then()
    });
    let (response, _) = Response::new(Fields::new(), Some(stream), wit_future::new(|| Ok(None)).1);
    Ok(response)
}

fn odd(error: impl std::fmt::Debug) -> ErrorCode {
    ErrorCode::InternalError(Some(format!("{error:?}")))
}
