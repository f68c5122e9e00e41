//! Names of crawlers' addresses, looked up at a name server on loopback.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, PTR};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use http::{Method, StatusCode};
use meridian_origin::limits::{NAME_LOOKUPS_MAX, NAME_LOOKUPS_PER_S};
use meridian_origin::serve::start;
use meridian_origin::traces::Traces;
use meridian_wire::limits::SYNC_ADDRESSES_MAX;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::{Region, config, free_port, until};
use tokio::net::UdpSocket;

/// Answers for a few addresses and names, counts what it is asked, and is silent about 203.0.113.13.
async fn name_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut bytes = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut bytes).await {
            count.fetch_add(1, Ordering::Relaxed);
            let Some(answer) = Message::from_vec(&bytes[..length]).ok().and_then(answer) else { continue };
            let _ = socket.send_to(&answer.to_vec().expect("a message"), peer).await;
        }
    });
    (address, asked)
}

fn answer(question: Message) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let name = |text: &str| RData::PTR(PTR(Name::from_ascii(text).expect("a name")));
    // Names are the same in upper and lower case (RFC 4343).
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let data = match (asked.trim_end_matches('.'), query.query_type()) {
        ("9.113.0.203.in-addr.arpa", RecordType::PTR) => vec![name("crawl-9.googlebot.com.")],
        ("crawl-9.googlebot.com", RecordType::A) => vec![RData::A(A::new(203, 0, 113, 9))],
        // Whoever has an address can give it any name.
        ("10.113.0.203.in-addr.arpa", RecordType::PTR) => vec![name("crawl-9.googlebot.com.")],
        ("13.113.0.203.in-addr.arpa", _) => return None,
        (reverse, RecordType::PTR) if reverse.ends_with("ip6.arpa") => {
            vec![name("other.example."), name("Crawl-6.Example.")]
        }
        ("crawl-6.example", RecordType::AAAA) => {
            vec![RData::AAAA(AAAA("2001:db8::6".parse().expect("an address")))]
        }
        _ => vec![],
    };
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    if data.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(query.name().clone(), 60, data)));
    answer.add_query(query);
    Some(answer)
}

async fn ask(region: &Region, addresses: &[IpAddr]) -> Vec<Value> {
    let question = json!({"edge": "e", "targets": {}, "purge_cursor": null, "addresses": addresses});
    let answer = region.as_edge(Method::POST, "/edge/v1/sync", Some(&question)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["names"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_the_name_that_has_the_address() {
    let (server, asked) = name_server().await;
    let cluster = Cluster::start("us-east-1", 1).await;
    let mut config = config(&cluster, free_port(), vec![]);
    config.name_servers = vec![server];
    let region = Region::of(cluster, start(config, Traces::default()).await.expect("the origin starts"));
    let texts = ["203.0.113.9", "203.0.113.10", "203.0.113.11", "2001:db8::6", "203.0.113.13"];
    let addresses = texts.map(|text| text.parse::<IpAddr>().expect("an address"));
    assert!(ask(&region, &addresses).await.is_empty(), "nobody waits");
    let names =
        until("the names", async || Some(ask(&region, &addresses).await).filter(|names| names.len() >= 4))
            .await;
    let found: Vec<_> =
        names.iter().map(|entry| (entry["address"].as_str(), entry["name"].as_str())).collect();
    let expected = [
        (Some("203.0.113.9"), Some("crawl-9.googlebot.com")),
        (Some("203.0.113.10"), None),
        (Some("203.0.113.11"), None),
        (Some("2001:db8::6"), Some("crawl-6.example")),
    ];
    assert_eq!(found, expected, "and of whom no name server says anything, nothing is said");
    assert!(names[0]["keep_ms"].as_u64().is_some_and(|ms| ms > 3_000_000), "{names:?}");
    let before = asked.load(Ordering::Relaxed);
    ask(&region, &addresses[..4]).await;
    assert_eq!(asked.load(Ordering::Relaxed), before, "what is known is not asked again");

    // However much edges ask for, few lookups begin.
    let many: Vec<IpAddr> = (0..SYNC_ADDRESSES_MAX * 40)
        .map(|number| {
            IpAddr::from([
                198,
                51,
                u8::try_from(number / 250).expect("small"),
                u8::try_from(number % 250).expect("small"),
            ])
        })
        .collect();
    let lookups = || region.serving.origin().names.counts.lookups.get();
    let (began, first) = (std::time::Instant::now(), lookups());
    for part in many.chunks(SYNC_ADDRESSES_MAX) {
        ask(&region, part).await;
    }
    let seconds = began.elapsed().as_secs() + 2;
    assert!(
        lookups() - first <= u64::from(NAME_LOOKUPS_PER_S) * seconds,
        "{} in {seconds} s",
        lookups() - first
    );
    assert!(region.serving.origin().names.counts.refused.get() > 0);
    assert!(NAME_LOOKUPS_MAX < many.len());
    let question = json!({"edge": "e", "targets": {}, "purge_cursor": null, "addresses": many});
    let refused = region.as_edge(Method::POST, "/edge/v1/sync", Some(&question)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    region.stop().await;
}
