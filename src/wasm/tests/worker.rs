//! A worker with one root context, and the stores that it asks through the fake host.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use flate2::write::GzEncoder;

use crate::hash::Sha256Hash;
use crate::http::ETag;
use crate::snapshot::testing::Publisher;
use crate::surfaces::posthog::directory::{Record, etag_hash};
use crate::surfaces::posthog::document;
use crate::tenant::Tenant;
use crate::wasm::fake::{Callout, FakeHost, Sent, host};
use crate::wasm::root::{Root, Shared};
use crate::wasm::stream::{self, Next, Stream};
use crate::worker::registry;

pub const ROOT: u32 = 1;
pub const PAYLOAD: &str = r#"{"flags":[{"key":"checkout"}]}"#;
pub const READ_THROUGH: &str = r#"{"snapshot":{"buckets":16},"read_through":{"enabled":true}}"#;
/// A document of Flagsmith's, in version `v1`: that of any environment.
const DOCUMENT: &[u8] = include_bytes!("../../../tests/flagsmith/environment.json");
/// What PostHog's own cache knows of team `b`.
const METADATA: &str =
    r#"{"id":2,"api_token":"phc_b","organization_id":null,"secret_api_token":"phs_b"}"#;

/// The same of the secret of team `e`.
const CREDENTIAL: &str = r#"{"type":"secret","team_id":5,"api_token":"phc_e"}"#;

/// Teams: `a` is an ordinary one; `b` is known to PostHog's cache alone, of `e` only the secret; the payload of `c` is in no Redis;
/// the quota of `d` is used up.
pub struct EnvoyVm {
    /// The newest root context.
    pub root: Shared,
    /// All root contexts, the newest last: an update of the configuration adds one.
    roots: Vec<(u32, Shared)>,
    /// The root context of each stream.
    streams: RefCell<HashMap<u32, Shared>>,
    pub redis: Redis,
    /// The payload in Redis, and its ETag.
    pub payload: String,
    pub etag: &'static str,
    /// Requests that were added to PostHog's usage hashes, by field.
    pub usage: BTreeMap<u32, u64>,
    /// Rebuilds that were asked for.
    pub rebuilds: u32,
    /// What the list of limited teams has beside `d`.
    pub limited: &'static str,
    /// Commands that wrote latches.
    pub latches: Vec<String>,
    /// How often it ticked.
    pub ticks: u32,
    batches: HashSet<(String, String)>,
    gone: HashSet<u32>,
    /// The snapshot in Redis, and the changes that follow it.
    pub published: Publisher,
    /// Whether a publisher adds a watermark before each poll.
    pub publisher: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Redis {
    Up,
    /// Replies to somebody else.
    Astray,
    Down,
    Silent,
}

/// A worker with this configuration, read by nobody yet.
pub fn worker(config: &str) -> EnvoyVm {
    host(|host| *host = FakeHost::default());
    let team = |id: u32, name: &str| {
        let secret = Sha256Hash::of(format!("phs_{name}").as_bytes()).to_hex();
        format!(r#"{{"id":{id},"api_token":"phc_{name}","secret_token_sha256":["{secret}"]}}"#)
    };
    let teams = [team(1, "a"), team(3, "c"), team(4, "d")].join(",");
    let json = format!(r#"{{"format":1,"teams":[{teams}]}}"#);
    let records = document::parse(json.as_bytes()).unwrap();
    let mut published = Publisher {
        now: 100,
        records: records.by_hash,
        ..Publisher::default()
    };
    published.last.millis = published.now;
    published.rewrite(0);
    let root = Rc::new(RefCell::new(Root::new(ROOT)));
    let worker = EnvoyVm {
        roots: vec![(ROOT, Rc::clone(&root))],
        root,
        streams: RefCell::default(),
        redis: Redis::Up,
        payload: PAYLOAD.to_owned(),
        etag: "e1",
        usage: BTreeMap::new(),
        rebuilds: 0,
        limited: "",
        latches: Vec::new(),
        ticks: 0,
        batches: HashSet::new(),
        gone: HashSet::new(),
        published,
        publisher: false,
    };
    let config = if config.is_empty() {
        r#"{"snapshot":{"buckets":16}}"#
    } else {
        config
    };
    host(|host| {
        host.configuration = config.as_bytes().to_vec();
        host.now = Duration::from_secs(1_000);
        host.unix = Duration::from_secs(1_700_000_000);
        call_back(host, ROOT);
    });
    worker
}

/// The same, before a snapshot that a publisher watches: the ETag of team `a` is published, the secret of `c`
/// revoked.
pub fn watched_worker(config: &str) -> EnvoyVm {
    let mut worker = worker(config);
    let published = &mut worker.published;
    published.generation = 0;
    published.rewrite(1);
    let etag = Record::ETag(ETag::new(b"e1").unwrap()).encode();
    published.change(etag_hash(Tenant(1)), etag);
    published.change(Sha256Hash::of(b"phs_c"), None);
    worker.publisher = true;
    worker
}

/// A worker that loaded its first snapshot.
pub fn loaded() -> EnvoyVm {
    loaded_with("")
}

/// The same, with a configuration of its own.
pub fn loaded_with(config: &str) -> EnvoyVm {
    let mut worker = worker(config);
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    worker
}

impl EnvoyVm {
    pub fn configure(&self) -> bool {
        let size = host(|host| host.configuration.len());
        self.root.borrow_mut().configure(size)
    }

    /// A configuration update that changes nothing: a second root context in the same VM, if it is accepted.
    pub fn update(&mut self) {
        let id = self.roots.last().map_or(ROOT, |(id, _)| *id + 1);
        let old = std::mem::replace(&mut self.root, Rc::new(RefCell::new(Root::new(id))));
        host(|host| call_back(host, id));
        if self.configure() {
            self.roots.push((id, Rc::clone(&self.root)));
        } else {
            self.root = old;
        }
    }

    /// After an update the older root context ends, as when its listener has drained.
    pub fn drain(&mut self) {
        if self.roots.len() > 1 {
            let (id, root) = self.roots.remove(0);
            host(|host| call_back(host, id));
            root.borrow_mut().done();
        }
    }

    /// Ticks through `time`, at the pace that the filter set.
    pub fn run(&mut self, time: Duration) {
        let until = host(|host| host.now) + time;
        while host(|host| host.now) < until {
            let pace = Duration::from_millis(host(|host| host.tick.clamp(10, 1_000)).into());
            host(|host| {
                host.now += pace;
                host.unix += pace;
            });
            self.ticks += 1;
            for (id, root) in &self.roots {
                host(|host| call_back(host, *id));
                root.borrow_mut().tick();
            }
            self.answer_callouts();
        }
    }

    /// Delivers the replies of all callouts that are under way.
    pub fn answer_callouts(&mut self) {
        if self.redis == Redis::Silent {
            return;
        }
        for callout in host(|host| std::mem::take(&mut host.callouts)) {
            self.answer_callout(&callout);
        }
    }

    /// Delivers the reply of the callout that is under way longest.
    pub fn answer_next_callout(&mut self) {
        let mut callouts = host(|host| std::mem::take(&mut host.callouts));
        let next = callouts.remove(0);
        host(|host| host.callouts = callouts);
        self.answer_callout(&next);
    }

    fn answer_callout(&mut self, callout: &Callout) {
        // The SDK drops the reply to a stream that is gone.
        if self.gone.contains(&callout.owner) {
            return;
        }
        let reply = match self.redis {
            Redis::Down => None,
            _ => Some(self.tagged_reply(callout)),
        };
        let size = host(|host| {
            call_back(host, callout.owner);
            host.reply_status = Some(if reply.is_none() { b"503" } else { b"200" }.to_vec());
            host.reply_body = reply.unwrap_or_default();
            host.reply_body.len()
        });
        let streams = self.streams.borrow();
        let of_root = || self.roots.iter().find(|(id, _)| *id == callout.owner);
        let root = streams
            .get(&callout.owner)
            .or_else(|| of_root().map(|(_, root)| root));
        if let Some(root) = root {
            stream::on_callout(root, callout.owner, callout.token, size);
        }
    }

    /// A script's last argument is its tag, and the last string of its reply.
    fn tagged_reply(&mut self, callout: &Callout) -> Vec<u8> {
        let tagged = callout.body.strip_suffix(".raw");
        let Some((body, tag)) = tagged.and_then(|text| text.rsplit_once('/')) else {
            return self.reply(callout);
        };
        if !body.starts_with("EVAL") {
            return self.reply(callout);
        }
        let reply = self.reply(&Callout {
            body: format!("{body}.raw"),
            ..callout.clone()
        });
        let tag = match self.redis {
            Redis::Astray => "0123456789abcdef",
            _ => tag,
        };
        let text = reply.strip_prefix(b"*").unwrap();
        let end = text.iter().position(|byte| *byte == b'\r').unwrap();
        let count: usize = std::str::from_utf8(&text[..end]).unwrap().parse().unwrap();
        let mut reply = format!("*{}", count + 1).into_bytes();
        reply.extend_from_slice(&text[end..]);
        reply.extend(bulk(tag.as_bytes()));
        reply
    }

    /// What a store replies: Redis in webdis' words.
    fn reply(&mut self, Callout { path, body, .. }: &Callout) -> Vec<u8> {
        let has = |what: &str| body.contains(what);
        let pages = &self.published.pages;
        let page = pages.iter().find(|(key, _)| has(&key.replace(':', "%3A")));
        if path.starts_with("/bucket/") {
            PAYLOAD.as_bytes().to_vec()
        } else if has("flagsmith%3A") {
            resp(&[b"full", b"v1", &zipped(DOCUMENT)])
        } else if has("%3Achanges") {
            self.poll(body)
        } else if has("quota-limits") {
            let list = format!("5:phc_d1800000000\n{}", self.limited);
            resp(&[b"quota", b"1700000000", b"0", list.as_bytes()])
        } else if has("team_metadata") {
            resp(&[METADATA.as_bytes(), b""])
        } else if has(&Sha256Hash::of(b"phs_e").to_hex()) {
            resp(&[b"", CREDENTIAL.as_bytes()])
        } else if body.starts_with("EVAL_RO") && has("teams%2F3%2F") {
            resp(&[b"none", b"", b"", b""])
        } else if body.starts_with("EVAL_RO") {
            let etag = self.etag.as_bytes();
            let current = format!("/{}.raw", self.etag);
            if body.ends_with(&current) || body.ends_with("/%2A.raw") {
                resp(&[b"same", etag, b"", b""])
            } else {
                resp(&[b"full", etag, self.payload.as_bytes(), b""])
            }
        } else if body.starts_with("EVAL/") && has("usage%3A") {
            self.add_usage(body)
        } else if body.starts_with("EVAL/") {
            self.latches.push(body.clone());
            resp(&[b"latch", b"1700000000", b"0", b"1"])
        } else if body.starts_with("ZADD") {
            self.rebuilds += 1;
            b":1\r\n".to_vec()
        } else if let Some((_, page)) = page {
            bulk(page)
        } else {
            panic!("an unknown command: {body}")
        }
    }

    /// The same records once more, as a newer generation.
    pub fn publish_again(&mut self) {
        self.published.last.millis += 1;
        self.published.rewrite(0);
    }

    /// As the script of `snapshot::poll` does it, for a client that knows no manifest.
    fn poll(&mut self, body: &str) -> Vec<u8> {
        let now = host(|host| host.unix);
        self.published.now = u64::try_from(now.as_millis()).unwrap();
        if self.publisher {
            self.published.watermark();
        }
        let position = body.rsplit('/').nth(1).unwrap();
        let parts = self.published.poll("", position.parse().ok());
        resp(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// As the script of `usage::batch` does it.
    fn add_usage(&mut self, body: &str) -> Vec<u8> {
        let mut words = body.trim_end_matches(".raw").split('/').skip(2);
        let mut next = || words.next().map(str::to_owned);
        let keys: usize = next().unwrap().parse().unwrap();
        (0..keys).for_each(|_| drop(next()));
        let mut reply = vec!["0".to_owned()];
        while let Some(slot) = next() {
            let sequence = next().unwrap();
            let counters: usize = next().unwrap().parse().unwrap();
            reply.push(format!("{slot}:{sequence}"));
            let is_new = self.batches.insert((slot, sequence));
            for _ in 0..counters {
                let [_, _, field, count] = [(); 4].map(|()| next().unwrap());
                if is_new {
                    *self.usage.entry(field.parse().unwrap()).or_default() +=
                        count.parse::<u64>().unwrap();
                }
            }
        }
        let reply: Vec<&[u8]> = reply.iter().map(|word| word.as_bytes()).collect();
        resp(&reply)
    }

    /// A stream ends: it was answered, or its client went away.
    pub fn end(&mut self, mut stream: Stream) {
        host(|host| call_back(host, stream.id));
        stream.done();
        self.gone.insert(stream.id);
    }

    pub fn request(&self, id: u32, headers: &[(&str, &[u8])]) -> (Stream, Next) {
        let mut stream = Stream::new(id, Rc::clone(&self.root));
        let root = Rc::clone(&self.root);
        self.streams.borrow_mut().insert(id, root);
        host(|host| {
            call_back(host, id);
            host.requests.insert(
                id,
                headers
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                    .collect(),
            );
        });
        let next = stream.on_request_headers(true);
        (stream, next)
    }

    pub fn get(&self, id: u32, if_none_match: Option<&str>) -> (Stream, Next) {
        self.get_as("a", id, if_none_match)
    }

    /// As another team.
    pub fn get_as(&self, team: &str, id: u32, if_none_match: Option<&str>) -> (Stream, Next) {
        self.get_accepting("", team, id, if_none_match)
    }

    /// As a client that accepts these codings.
    pub fn get_accepting(
        &self,
        codings: &str,
        team: &str,
        id: u32,
        if_none_match: Option<&str>,
    ) -> (Stream, Next) {
        let path = format!("/flags/definitions?token=phc_{team}");
        let authorization = format!("Bearer phs_{team}");
        let mut headers: Vec<(&str, &[u8])> = vec![
            (":method", b"GET"),
            (":path", path.as_bytes()),
            ("authorization", authorization.as_bytes()),
        ];
        headers.extend(if_none_match.map(|value| ("if-none-match", value.as_bytes())));
        if !codings.is_empty() {
            headers.push(("accept-encoding", codings.as_bytes()));
        }
        self.request(id, &headers)
    }
}

impl Drop for EnvoyVm {
    fn drop(&mut self) {
        self.roots.iter().for_each(|(id, _)| registry::leave(*id));
    }
}

/// The host is about to call a context back.
fn call_back(host: &mut FakeHost, context: u32) {
    host.context = context;
    host.active = context;
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

fn resp(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
    parts.iter().for_each(|part| bytes.extend(bulk(part)));
    bytes
}

/// The answers since the last call.
pub fn sent() -> Vec<Sent> {
    host(|host| std::mem::take(&mut host.sent))
}

/// Stream and status of each of them.
pub fn statuses() -> Vec<(u32, u32)> {
    sent()
        .iter()
        .map(|sent| (sent.stream, sent.status))
        .collect()
}
