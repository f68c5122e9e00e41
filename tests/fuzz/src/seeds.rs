//! Inputs to begin with: the repository's own rules, cases and stored files in the shape that each target reads.

use std::fs;
use std::path::{Path, PathBuf};

use meridian_engine::ruleset::Target;
use meridian_wire::authored::{File, compile};
use serde_json::Value;

use crate::edge::{START_MS, documents as rules};
use crate::jwt::mint_right;
use crate::tokens::examples;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Name and text of each file in a folder, in the order of names; what is not there has none.
pub(crate) fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<(String, String)> = entries
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), fs::read_to_string(&path).ok()?)))
        .collect();
    files.sort();
    files
}

fn bytes(texts: impl IntoIterator<Item = String>) -> Vec<Vec<u8>> {
    texts.into_iter().map(String::into_bytes).collect()
}

/// Each document of the demo and of the corpus, and the small files whole.
pub(crate) fn documents() -> Vec<Vec<u8>> {
    let demo = ["acme", "globex", "platform"].map(|name| files(&folder("infra/demo").join(name)));
    let corpus = ["shop", "rival", "platform"].map(rules);
    let texts = demo.into_iter().chain(corpus).flatten().map(|(_, text)| text);
    bytes(texts.flat_map(|text| {
        let parts: Vec<String> = text.split("---\n").map(str::to_owned).collect();
        parts.into_iter().chain((text.len() < 2_000).then_some(text))
    }))
}

/// What stands after `when:`, `bypass:` and their kin in the rules.
pub(crate) fn conditions() -> Vec<Vec<u8>> {
    let texts = ["shop", "rival"].map(rules).into_iter().flatten().map(|(_, text)| text);
    let texts = texts.chain(files(&folder("infra/demo/acme")).into_iter().map(|(_, text)| text));
    bytes(texts.flat_map(|text| {
        let after = |line: &str| {
            let at = ["when: ", "bypass: ", "cost: ", "audience: ", "cel: "];
            let (_, cel) = at.iter().find_map(|word| line.split_once(word))?;
            Some(cel.trim_matches([' ', '\'', '"', '}']).to_owned())
        };
        text.lines().filter_map(after).collect::<Vec<_>>()
    }))
}

pub(crate) fn networks() -> Vec<Vec<u8>> {
    bytes(
        ["192.0.2.1\n198.51.100.0/24 # a net\n\n2001:db8::/32\n::1\n", "0.0.0.0/0\n::/0\n", "10.0.0.1/8\n"]
            .map(str::to_owned),
    )
}

/// The stored bundles, and those of the corpus's rules.
pub(crate) fn bundles() -> Vec<Vec<u8>> {
    let stored = files(&folder("shared/wire/tests/stored")).into_iter();
    let stored = stored.filter(|(name, _)| name.starts_with("bundle-")).map(|(_, text)| text);
    let small = documents().into_iter().filter_map(|text| {
        let content = String::from_utf8(text).ok()?;
        let tenant = "apiVersion: meridian/v1\nkind: Tenant\nmetadata: { name: acme }\n\
                      spec: { homeRegion: us-east-1, allowedRegions: [us-east-1] }\n";
        let file = |path: &str, content: &str| File { path: path.to_owned(), content: content.to_owned() };
        let files = [file("a.yaml", &content), file("t.yaml", tenant)];
        let compiled = compile(&Target::Tenant("acme".to_owned()), &files, None).ok()?;
        String::from_utf8(compiled.bytes).ok()
    });
    bytes(stored.chain(small).map(|text| format!("\u{7}{}", text.trim())))
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let stored = files(&folder("shared/wire/tests/stored")).into_iter();
    // The stored ticket is right by the key that this target's own is signed with.
    let stored = stored.filter(|(name, _)| name.ends_with(".txt") && !name.starts_with("ticket"));
    let stored = stored.map(|(_, text)| text.trim().to_owned());
    bytes(stored.chain(examples()).chain([crate::bundles::SIGNING_KEY.to_owned()]))
}

fn claims(subject: &str) -> String {
    let now = START_MS / 1_000;
    format!(
        "{{\"iss\":\"https://issuer.shop.test\",\"aud\":\"shop\",\"sub\":\"{subject}\",\"iat\":{now},\"exp\":{},\
         \"scope\":\"orders:read orders:write\"}}",
        now + 3_600
    )
}

const HEADER: &str = "{\"alg\":\"HS256\",\"kid\":\"hs\",\"typ\":\"JWT\"}";

/// Right tokens and wrong ones, as the corpus has them.
pub(crate) fn jwt() -> Vec<Vec<u8>> {
    let alice = claims("alice");
    let odd = [
        ("{\"alg\":\"none\"}", alice.clone()),
        ("{\"alg\":\"HS256\",\"kid\":\"ed\"}", alice.clone()),
        ("{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", alice.clone()),
        ("{\"alg\":\"HS256\",\"kid\":\"hs\",\"crit\":[\"exp\"],\"jku\":\"http://a\"}", alice.clone()),
        (HEADER, alice.replace("\"shop\"", "[\"a\",\"shop\"]").replace("alice", "mallory")),
        (HEADER, alice.replace("\"iat\"", "\"nbf\":1,\"jti\":\"stolen\",\"iat\"")),
        ("{\"alg\":\"EdDSA\",\"kid\":\"p\"}", alice.replace("issuer.shop.test", "partner.test")),
    ];
    let keys = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"p\",\"alg\":\"EdDSA\",\"use\":\"sig\",\
                \"x\":\"0o5ilknoNPWG1rL9-Es96dI12pHrWrAYRbjTKQ2_xCM\"},{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"\",\"y\":\"\"}]}";
    let texts = odd.map(|(header, claims)| format!("sign\n{header}\n{claims}\n{keys}"));
    let plain = [format!("sign\n{HEADER}\n{alice}\n"), format!("wrong\n{HEADER}\n{alice}\n")];
    let written = mint_right(HEADER, &alice).replace('.', "..");
    bytes(texts.into_iter().chain(plain).chain([format!("Bearer {written}\n{written}\n\n")]))
}

/// The requests of every case of the decision corpus.
pub(crate) fn heads() -> Vec<Vec<u8>> {
    let cases = files(&folder("tests/corpus/cases")).into_iter();
    let cases = cases.filter_map(|(_, text)| serde_saphyr::from_str::<Vec<Value>>(&text).ok()).flatten();
    let texts = cases.map(|case| {
        let requests = case["requests"].as_array().into_iter().flatten();
        requests.map(head).collect::<Vec<_>>().join("\n%%\n")
    });
    let odd = [
        "GET shop.test /open\ncontent-length: 5\ntransfer-encoding: chunked\nhost: shop.test:1\n\n0\r\n\r\nGET /admin",
    ];
    bytes(texts.chain(odd.map(str::to_owned)))
}

/// The same, and requests behind responses that no target of good will gives.
pub(crate) fn requests() -> Vec<Vec<u8>> {
    let asked = "GET shop.test /pages/a\naccept: text/html";
    let odd = [
        "HTTP 200\ncache-control: max-age=60\nvary: accept, x-a\nage: 7\n\n<p>page</p>",
        "HTTP 200\nset-cookie: a=1\nmeridian-decision: forged\nconnection: x-a\nx-a: 1\ntransfer-encoding: chunked\n\npage",
        "HTTP 200\ncache-control: max-age=60, stale-while-revalidate=9\ncontent-encoding: gzip\netag: W/\"1\"\n\npage",
        "HTTP 206\ncontent-range: bytes 0-3/9\ncache-control: max-age=60\n\npage",
        "HTTP 304\netag: \"2\"\n\n",
        "HTTP 503\nretry-after: 1\n\n",
        "HTTP 101\nupgrade: websocket\nconnection: upgrade\n\n",
        "HTTP 99\n\n",
        "HTTP 1000\n\n",
    ];
    let behind = odd.map(|response| format!("{response}\n%%\n{asked}\n%%\n{asked}"));
    heads().into_iter().chain(bytes(behind)).collect()
}

/// What the end-to-end tests send to edges, and what their upstreams answer.
pub(crate) fn framing() -> Vec<Vec<u8>> {
    let cases = |name: &str| {
        let text = fs::read_to_string(folder("tests/end_to_end").join(name)).unwrap_or_default();
        serde_saphyr::from_str::<Vec<Value>>(&text).unwrap_or_default()
    };
    let sent = |how: u8, case: &Value| {
        let text = case["send"].as_str().unwrap_or_default();
        let text = text.replace("{H}", "Host: acme.localhost\r\n").replace("{C}", "Connection: close\r\n");
        [&[how], text.as_bytes()].concat()
    };
    let requests = cases("raw.yaml");
    let requests = requests.iter().map(|case| sent(0, case));
    let responses = cases("responses.yaml");
    let responses = responses.iter().map(|case| sent(if case["ends"] == true { 3 } else { 1 }, case));
    requests.chain(responses).collect()
}

fn head(request: &Value) -> String {
    let url = request["url"].as_str().unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, target) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let mut text = format!("{} {host} {target}", request["method"].as_str().unwrap_or("GET"));
    for field in request["headers"].as_array().into_iter().flatten() {
        let value = field[1].as_str().map_or_else(|| field[1].to_string(), with_token);
        text.push_str(&format!("\n{}: {value}", field[0].as_str().unwrap_or_default()));
    }
    match request["body"].as_str() {
        Some(body) => format!("{text}\ncontent-length: {}\n\n{body}", body.len()),
        None => text,
    }
}

/// `{{alice}}` as a right token of hers.
fn with_token(value: &str) -> String {
    match value.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?))) {
        Some((before, (name, after))) => format!("{before}{}{after}", mint_right(HEADER, &claims(name))),
        None => value.to_owned(),
    }
}

pub(crate) fn cookies() -> Vec<Vec<u8>> {
    bytes(
        [
            "a=1; meridian_session=s1.k.p.m; meridian_unit=\"u\"\nmeridian_region=us-east-1\n\n198.51.100.7, 10.0.0.1",
            "a = 1;;=;b\n\n[2001:db8::1]:443, 127.0.0.1:80, nonsense, ::ffff:10.0.0.1",
            "a=\n\n1=7;2=9;65535=18446744073709551615",
            "a=1\n\n10.0.0.0/8, ::1/128",
        ]
        .map(str::to_owned),
    )
}

/// Paths of the corpus's requests, and those that its tests refuse.
pub(crate) fn paths() -> Vec<Vec<u8>> {
    let odd = [
        "/a/../b",
        "/a/%2e%2E/b",
        "//a",
        "/a%2fb",
        "/a%252fb",
        "/100%25",
        "/caf%c3%a9?x=y+z%21&b",
        "acme.example.:80",
        "[::1]:8080",
    ];
    let cases = heads().into_iter().filter_map(|text| String::from_utf8(text).ok());
    let targets = cases.filter_map(|text| Some(text.lines().next()?.split(' ').nth(2)?.to_owned()));
    bytes(odd.map(str::to_owned).into_iter().chain(targets))
}

pub(crate) fn ranges() -> Vec<Vec<u8>> {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let of = |range: &str, if_range: &str| {
        format!("{range}\n{if_range}\n\"1\"\n{date}\nThu, 01 Jan 2026 00:00:02 GMT\n0123456789")
    };
    bytes([
        of("bytes=0-0", ""),
        of("bytes=2-", "\"1\""),
        of("Bytes= -3 ", date),
        of("bytes=9-18446744073709551616", "W/\"1\""),
        of("bytes=10-", ""),
        of("bytes=0-1,3-4", ""),
    ])
}

pub(crate) fn places() -> Vec<Vec<u8>> {
    fs::read(folder("shared/wire/tests/stored/places.mmdb")).into_iter().collect()
}

pub(crate) fn content() -> Vec<Vec<u8>> {
    let page = "<html><head><title>t</title></head><body><a href=x>l</a><p class=b>x<b><i>y</i></b><img onerror=1>\
                <script>if (a < b) {}</script><!-- c --></body></html>";
    (0..6).map(|choice| [&[7, choice | (choice % 2) << 7], page.as_bytes()].concat()).collect()
}
