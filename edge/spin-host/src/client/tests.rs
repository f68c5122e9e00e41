use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use meridian_edge_http::protocols;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::mpsc,
    time::sleep,
};

use super::*;

const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    response: Duration::from_secs(60),
};

/// Answers every request with so many bytes, once its body is there.
async fn serve(stream: DuplexStream, bytes: usize) {
    let (stream, exchanges) = Watched::new(stream, PATIENCE);
    let service = service_fn(move |request: Request<Incoming>| {
        let (received, sent) = exchanges.begin();
        let request = request.map(received);
        async move {
            let _body = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(vec![b'.'; bytes]))).map(sent))
        }
    });
    let _ended = protocols().serve_connection(TokioIo::new(stream), service).await;
}

/// The statuses that a client gets which sends these parts with so many seconds after each, and when its connection ends.
async fn told(parts: &[(&str, u64)]) -> (Vec<String>, u64) {
    let (client, server) = duplex(1 << 16);
    let begun = Instant::now();
    tokio::spawn(serve(server, 2));
    let (mut from, mut to) = split(client);
    let send = async {
        for (part, pause) in parts {
            // The server may have gone.
            let _sent = to.write_all(part.as_bytes()).await;
            sleep(Duration::from_secs(*pause)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answers = Vec::new();
    let read = from.read_to_end(&mut answers);
    tokio::select! {
        read = read => { read.unwrap(); }
        () = send => {}
    }
    let answers = String::from_utf8(answers).unwrap();
    let statuses = answers.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
    (statuses, begun.elapsed().as_secs())
}

/// What is sent, and after how many seconds each part of it.
type Parts<'a> = &'a [(&'a str, u64)];
/// What it is about, what is sent, the statuses that come, and after how many seconds the connection ends.
type Case<'a> = (&'a str, Parts<'a>, &'a [&'a str], u64);

const WHOLE: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_the_first_as_any_other() {
    let trickled: Vec<(&str, u64)> = WHOLE.split("").map(|letter| (letter, 1)).collect();
    let later: Vec<(&str, u64)> = [&[(WHOLE, 30)][..], &trickled[1..]].concat();
    let cases: &[Case<'_>] = &[
        ("silence", &[("", 1)], &[], 75),
        ("half a head", &[("GET / HTTP/1.1\r\n", 1)], &["408"], 10),
        ("a head by its letters", &trickled[1..], &["408"], 10),
        ("two halves", &[("GET / HTTP/1.1\r\n", 9), ("host: a\r\n\r\n", 1)], &["200"], 84),
        ("nothing after a request", &[(WHOLE, 1)], &["200"], 75),
        ("a second head by its letters", &later, &["200", "408"], 40),
        ("a second head behind line ends", &[(WHOLE, 5), ("\r\n", 30), ("GET", 1)], &["200", "408"], 45),
        ("line ends alone", &[("\r\n", 50)], &[], 75),
        ("the beginning of HTTP/2", &[("PRI * HTTP", 1)], &["408"], 10),
    ];
    for (about, parts, statuses, ended_s) in cases {
        let found = told(parts).await;
        let statuses = statuses.iter().map(|status| (*status).to_owned()).collect::<Vec<_>>();
        assert_eq!(found, (statuses, *ended_s), "{about}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_no_head_however_long_it_takes() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n";
    let (statuses, after_s) = told(&[(head, 20), ("a", 100), ("bc", 1)]).await;
    assert_eq!((statuses, after_s), (vec!["200".to_owned()], 195));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_a_response_is_not_waited_for() {
    let (mut client, server) = duplex(1 << 10);
    let begun = Instant::now();
    let served = tokio::spawn(serve(server, 1 << 20));
    client.write_all(WHOLE.as_bytes()).await.unwrap();
    let mut part = [0; 600];
    client.read_exact(&mut part).await.unwrap();
    sleep(Duration::from_secs(30)).await;
    client.read_exact(&mut part).await.unwrap();
    served.await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn in_http2_a_body_that_is_given_up_is_not_whole() {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // `POST http://a/` by the static table (RFC 7541, appendix A), and the beginning of its body.
    const BEGUN: &[u8] = b"\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x41\x01a\0\0\x03\0\0\0\0\0\x01abc";
    const CASES: &[(&str, &[u8], bool)] = &[
        ("its end", b"\0\0\0\0\x01\0\0\0\x01", true),
        ("a reset with an error", b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08", false),
        ("a reset without one", b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\0", false),
    ];
    for (about, end, is_whole) in CASES {
        let (mut client, server) = duplex(1 << 16);
        let (tell, mut told) = mpsc::unbounded_channel();
        let (stream, exchanges) = Watched::new(server, PATIENCE);
        let service = service_fn(move |request: Request<Incoming>| {
            let (received, sent) = exchanges.begin();
            let (request, tell) = (request.map(received), tell.clone());
            async move {
                let body = request.into_body().collect().await;
                tell.send(body.is_ok()).unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())).map(sent))
            }
        });
        tokio::spawn(async move {
            let _ended = protocols().serve_connection(TokioIo::new(stream), service).await;
        });
        client.write_all(&[PREFACE, SETTINGS, BEGUN, *end].concat()).await.unwrap();
        assert_eq!(told.recv().await, Some(*is_whole), "{about}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_http2_it_is_requests_that_count() {
    let exchanges = Exchanges::new();
    let begun = Instant::now();
    let awaited = || exchanges.seen().awaited(&PATIENCE, Instant::now());
    for part in [&PREFACE[..5], &PREFACE[5..], &b"\0\0\0\x04\0\0\0\0\0"[..]] {
        exchanges.seen().read(part, Instant::now());
    }
    assert_eq!(awaited(), (begun + PATIENCE.idle, Some(Late::Request)));
    tokio::time::advance(Duration::from_secs(50)).await;
    let (received, sent) = exchanges.begin();
    drop(received(Full::new(Bytes::new())));
    assert_eq!(awaited().1, None);
    let mut sent = sent(Full::new(Bytes::from_static(b"ok")));
    for _ in 0..2 {
        let taken = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(awaited(), (taken + PATIENCE.response, Some(Late::Taking)));
        let _some = sent.frame().await;
    }
    assert_eq!(awaited().1, None);
    drop(sent);
    assert_eq!(awaited(), (Instant::now() + PATIENCE.idle, Some(Late::Request)));
}
