//! A surface that is no product's: each request names a document by a number. The worker must not need more.

use std::borrow::Cow;
use std::time::Duration;

use crate::http::{Body, Cors, CorsProfile, Late, Response};
use crate::metrics::Metric;
use crate::redis::{Command, Dialect, Failure, Gateway, Purpose, Reply};
use crate::shared::{Errand, Finding, Held, Job, Machinery, Store};
use crate::snapshot::status::Status;
use crate::surfaces::{
    Decided, Fetch, Question, Read, Reason, Receipt, Received, SentRead, ShowJob, Step, StepOf,
    Surface, SurfaceRequest, Terms,
};
use crate::tenant::Tenant;
use crate::time::Monotonic;

static PROFILE: CorsProfile = CorsProfile {
    methods: Some("GET"),
    allows_credentials: true,
    cache_control: None,
    vary: "origin",
    vary_by_encoding: "origin, accept-encoding",
};

const NO_CORS: &Cors<'_> = &Cors {
    origin: None,
    request_headers: None,
    request_method: None,
};

/// What is asked: 0 is answered at once, 1 is forwarded, 60 has a body, 61 is worked on by the surface, all else has to be
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number(pub u32);

impl SurfaceRequest for Number {
    type Owned = Self;

    fn weight(&self) -> usize {
        4
    }

    fn into_owned(self) -> Self {
        self
    }

    fn gets_no_body(&self) -> bool {
        false
    }
}

impl Read for Number {
    fn unconditional(&self) -> Option<Self> {
        None
    }
}

/// A job that asks once a second, and remembers what it was told.
#[derive(Default)]
pub struct Asker {
    pub lease: Option<String>,
    pub held: Vec<Held>,
    pub replies: Vec<(u64, Result<(), Failure>)>,
    pub stopped: u32,
    asked: u64,
    next: Monotonic,
    findings: Vec<Finding>,
}

impl<S: Store> Job<S, Metric> for Asker {
    fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    fn tick(&mut self, held: Held, machinery: &mut Machinery<'_, S, Metric>) -> Option<Errand> {
        self.held.push(held);
        if held != Held::Yes || machinery.now < self.next {
            return None;
        }
        self.next = machinery.now.plus(Duration::from_secs(1));
        self.asked += 1;
        Some(Errand {
            gateway: gateway(),
            command: Command::get("job"),
            largest_reply: 100,
            purpose: Purpose::Quota,
            key: self.asked,
        })
    }

    fn reply(
        &mut self,
        key: u64,
        reply: Result<Reply<'_>, Failure>,
        _: &mut Machinery<'_, S, Metric>,
    ) {
        self.replies.push((key, reply.map(drop)));
        match reply_failure(&self.replies) {
            Some(failure) => {
                let line = format!("asking: {failure}");
                self.findings.push(Finding::Trouble("asking", line));
            }
            None => self.findings.push(Finding::Settled("asking")),
        }
    }

    fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn due_in(&self, now: Monotonic) -> Duration {
        self.next.since(now).max(Duration::from_millis(20))
    }

    fn stop(&mut self, _: &mut Machinery<'_, S, Metric>) {
        self.stopped += 1;
    }
}

fn reply_failure(replies: &[(u64, Result<(), Failure>)]) -> Option<Failure> {
    replies.last().and_then(|(_, reply)| reply.err())
}

fn gateway() -> Gateway {
    Gateway {
        cluster: "redis".to_owned(),
        dialect: Dialect::Webdis,
        timeout: Duration::from_millis(250),
    }
}

/// The surface.
pub struct Toy {
    pub gateway: Gateway,
    pub asker: Asker,
    /// Reads that landed: what was asked, and what came.
    pub landed: Vec<(u32, Result<(), Failure>)>,
    pub sent: Vec<u16>,
    /// Longest body of 60.
    pub body_bytes: usize,
    /// Whose 60 is.
    pub tenant: Tenant,
    /// Bodies that came.
    pub bodies: Vec<Vec<u8>>,
    /// What nobody waits for any more.
    pub abandoned: Vec<u32>,
    /// Whether the work on 61 is done.
    pub is_done: bool,
    status: Status,
}

impl Default for Toy {
    fn default() -> Self {
        Self {
            gateway: gateway(),
            asker: Asker::default(),
            landed: Vec::new(),
            sent: Vec::new(),
            body_bytes: 10,
            tenant: Tenant(1),
            bodies: Vec::new(),
            abandoned: Vec::new(),
            is_done: false,
            status: Status::default(),
        }
    }
}

pub fn response(status: u16, reason: &'static str) -> Response<'static> {
    Response {
        status,
        reason,
        body: Body::Fixed(""),
        content_type: None,
        allow: None,
        etag: None,
        retry_after: None,
        varies_by_encoding: false,
        late: Late::Nothing,
        extra: Vec::new(),
        cors: NO_CORS,
        profile: &PROFILE,
    }
}

fn reply<'r>(status: u16, reason: &'static str) -> StepOf<'r, Toy> {
    let receipt = Receipt {
        answer: status,
        tenant: Some(Tenant(1)),
        billed: false,
    };
    Step::Reply(response(status, reason), receipt)
}

fn decided<'r>(step: StepOf<'r, Toy>) -> Decided<'r, Toy> {
    Decided {
        step,
        carried: (),
        reads_alone: false,
    }
}

impl Surface for Toy {
    type Request<'a> = Number;
    type Read = Number;
    type Known = ();
    type Landed = Result<(), Failure>;
    type Carried = ();
    type Answer = u16;
    type Count = Metric;

    fn owns(&self, path: &[u8]) -> bool {
        path == b"/toy"
    }

    fn parse<'a>(
        &mut self,
        _: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Number {
        Number(fields.count() as u32)
    }

    fn unread(&self, _: &[u8]) -> Number {
        Number(0)
    }

    fn start<'r, S: Store>(
        &mut self,
        request: &'r Number,
        _: &mut Machinery<'_, S, Metric>,
    ) -> Decided<'r, Self> {
        decided(match request.0 {
            0 => reply(200, "at_once"),
            1 => Step::Forward(Reason::UnknownCredential),
            60 => Step::Body {
                max_bytes: self.body_bytes,
                tenant: self.tenant,
            },
            _ => Step::Read(*request),
        })
    }

    fn body<'r, S: Store>(
        &mut self,
        _: &'r Number,
        (): &(),
        body: &[u8],
        _: &mut Machinery<'_, S, Metric>,
    ) -> Decided<'r, Self> {
        self.bodies.push(body.to_vec());
        decided(match body {
            b"read" => Step::Read(Number(7)),
            _ => reply(200, "body"),
        })
    }

    fn too_long<'r>(&self, _: &'r Number) -> StepOf<'r, Self> {
        reply(413, "too_long")
    }

    fn finished(&mut self) -> Option<(Number, Self::Landed)> {
        std::mem::take(&mut self.is_done).then_some((Number(61), Ok(())))
    }

    fn abandoned(&mut self, read: &Number) {
        self.abandoned.push(read.0);
    }

    fn resume<'r, S: Store>(
        &mut self,
        _: &'r Number,
        (): &(),
        landed: &Self::Landed,
        _: &mut Machinery<'_, S, Metric>,
    ) -> Decided<'r, Self> {
        decided(match landed {
            Ok(()) => reply(200, "read"),
            Err(_) => reply(503, Reason::Redis.label()),
        })
    }

    fn undecided<'r>(&self, _: &'r Number, reason: Reason) -> StepOf<'r, Self> {
        reply(503, reason.label())
    }

    fn refuses<'r>(
        &mut self,
        read: &Number,
        _: &'r Number,
        _: Monotonic,
    ) -> Option<StepOf<'r, Self>> {
        (read.0 == 99).then(|| reply(429, "too_many_reads"))
    }

    fn fetch(&self, read: &Number) -> Option<Fetch<'_>> {
        // There is no object store here.
        if read.0 == 98 {
            return None;
        }
        let question = match read.0 {
            97 => Question::Object("store", Cow::Borrowed("/97")),
            61 => Question::Own,
            number => Question::Redis(&self.gateway, Command::get(&number.to_string())),
        };
        Some(Fetch {
            question,
            largest_reply: 100,
        })
    }

    fn terms(&self, _: &Number) -> Terms {
        Terms {
            timeout: self.gateway.timeout,
            purpose: Purpose::Definitions,
            reason: Reason::Redis,
        }
    }

    fn known<S: Store>(&self, _: &Number, _: &S) {}

    fn landed<S: Store>(
        &mut self,
        read: &Number,
        _: SentRead<()>,
        received: Received<'_>,
        _: &mut Machinery<'_, S, Metric>,
    ) -> (Self::Landed, Result<(), Failure>) {
        let outcome = match received {
            Received::Redis(reply) => reply.map(drop),
            Received::Object(answer) => answer.map(drop),
        };
        self.landed.push((read.0, outcome));
        (outcome, outcome)
    }

    fn length(&self, request: &Number, _: &Self::Landed) -> usize {
        // Some are a megabyte.
        if request.0 == 50 { 1 << 20 } else { 0 }
    }

    fn tenant_word(_: &u16) -> &'static str {
        "toy"
    }

    fn may_leave(&mut self, _: &Number, _: usize, _: Monotonic) -> bool {
        true
    }

    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<u16>,
        _: &Number,
        _: &mut Machinery<'_, S, Metric>,
    ) {
        self.sent.push(receipt.answer);
    }

    fn tick<S: Store>(&mut self, _: bool, _: &mut Machinery<'_, S, Metric>) {}

    fn loaded<S: Store>(&mut self, _: &mut Machinery<'_, S, Metric>) {}

    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, Metric>) {
        show(&mut self.asker);
    }

    fn due_in(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn status(&self) -> &Status {
        &self.status
    }
}
