//! What clients see: each surface is one product's API over the same machinery. Here is the contract that a worker knows of
//! them.
//!
//! A surface is stateful and pure: plain data in, plain data out. It decides a request ([`Surface::start`]), or says what has
//! to be read first ([`Surface::fetch`]). The worker reads that once for all who need the same, hands the reply to
//! [`Surface::landed`], and goes on with each of them ([`Surface::resume`]).

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use crate::documents::Documents;
use crate::http::Response;
use crate::records::CorruptRecord;
use crate::redis::{Command, Failure, Gateway, Purpose, Reply};
use crate::shared::{Ambient, Job, Machinery, Store};
use crate::snapshot::status::Status;
use crate::tenant::Tenant;
use crate::time::Monotonic;

mod either;
#[cfg(any(feature = "flagsmith", feature = "ofrep"))]
pub mod evaluated;
#[cfg(feature = "flagsmith")]
pub mod flagsmith;
#[cfg(feature = "ofrep")]
pub mod ofrep;
mod pair;
pub mod posthog;
mod reason;
mod table;
mod upstream;

pub use either::Either;
pub use pair::Pair;
pub use reason::Reason;
pub use upstream::Upstream;

/// Kinds of records from here on are of the surfaces beside PostHog's.
const FIRST_OWN_KIND: u8 = 16;

/// Whether these bytes are a record that some surface of this build can read, or one of a surface that it lacks. One snapshot
/// holds those of all.
///
/// ```
/// use flag_definitions_filter::surfaces;
/// assert!(surfaces::check(&[0]).is_ok(), "what was removed");
/// assert!(surfaces::check(b"\x07what no surface wrote").is_err());
/// assert!(surfaces::check(b"\xffof a surface that this build does not know").is_ok(), "it does no harm");
/// ```
///
/// # Errors
/// When they are not.
pub fn check(record: &[u8]) -> Result<(), CorruptRecord> {
    #[cfg(feature = "flagsmith")]
    if flagsmith::records::FlagsmithRecord::is_own(record) {
        return flagsmith::records::FlagsmithRecord::decode(record).map(drop);
    }
    #[cfg(feature = "ofrep")]
    if ofrep::records::OfrepRecord::is_own(record) {
        return ofrep::records::OfrepRecord::decode(record).map(drop);
    }
    // Another surface's, which is not in this build.
    if record.first().is_some_and(|kind| *kind >= FIRST_OWN_KIND) {
        return Ok(());
    }
    posthog::directory::Record::check(record)
}

/// Set on a request that goes to the upstream; says why. A request that carries it already came through here, so it is not
/// forwarded again.
pub const FORWARD_REASON_HEADER: &str = "x-flag-definitions-forward-reason";

/// What happens to a request next. `R` says what has to be read first, `A` is the surface's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a, R, A> {
    /// Answer it.
    Reply(Response<'a>, A),
    /// Let it go on to the upstream.
    Forward(Reason),
    /// Read this first.
    Read(R),
    /// Take its body first.
    Body {
        /// Most bytes of it.
        max_bytes: usize,
        /// Who asks. Of one tenant the worker awaits a part of all bodies.
        tenant: Tenant,
    },
}

/// What an answer owes once it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<A> {
    /// The answer.
    pub answer: A,
    /// Whose it is, once that is proven.
    pub tenant: Option<Tenant>,
    /// Whether it is billed.
    pub billed: bool,
}

/// A request, as a surface reads it.
pub trait SurfaceRequest {
    /// The same, kept beyond the callback that read it.
    type Owned;

    /// Bytes that keeping it costs, beyond its own size.
    fn weight(&self) -> usize;

    /// Copies what is borrowed.
    fn into_owned(self) -> Self::Owned;

    /// Whether the host takes the body off the answer (HEAD).
    fn gets_no_body(&self) -> bool;
}

/// What has to be read. Requests whose reads are equal share one.
pub trait Read: Clone + Eq + Hash + fmt::Debug {
    /// The same read with nothing held, whose reply serves everybody. `None` where nothing is ever held.
    fn unconditional(&self) -> Option<Self>;
}

/// A read as data: what is sent, and how much of the reply is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch<'a> {
    /// What is sent.
    pub question: Question<'a>,
    /// Largest reply that is read, in bytes.
    pub largest_reply: usize,
}

/// What holds of a read whether it can be sent or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Longest wait.
    pub timeout: Duration,
    /// What the callout counts as.
    pub purpose: Purpose,
    /// Why a request is not decided whose read cannot be sent.
    pub reason: Reason,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// A command to a Redis.
    Redis(&'a Gateway, Command),
    /// `GET` to an object store: its cluster, and the path.
    Object(&'a str, Cow<'a, str>),
    /// Nothing: the surface works on it by itself, and says when it has [`finished`](Surface::finished).
    Own,
}

/// What came back, or why nothing did.
#[derive(Clone, Debug)]
pub enum Received<'a> {
    /// Of [`Question::Redis`].
    Redis(Result<Reply<'a>, Failure>),
    /// Of [`Question::Object`].
    Object(Result<ObjectAnswer<'a>, Failure>),
}

/// What an object store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectAnswer<'a> {
    /// `:status`, if it has one.
    pub status: Option<&'a [u8]>,
    /// `content-encoding`, if it has one.
    pub coding: Option<&'a [u8]>,
    /// The body.
    pub body: &'a [u8],
}

/// When a read was sent, and what was known then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRead<K> {
    /// The time.
    pub at: Monotonic,
    /// What was known.
    pub known: K,
}

/// Ages of what is known, for the gauges. `None`: there is none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// Since Redis last said that the snapshot is the current one.
    pub snapshot: Option<Duration>,
    /// Of the newest watermark.
    pub watermark: Option<Duration>,
}

impl<'a> Received<'a> {
    /// The reply of a Redis.
    ///
    /// # Errors
    /// As it came; and when it is another store's.
    pub fn redis(self) -> Result<Reply<'a>, Failure> {
        match self {
            Self::Redis(reply) => reply,
            Self::Object(_) => Err(Failure::Malformed),
        }
    }

    /// The answer of an object store.
    ///
    /// # Errors
    /// As it came; and when it is a Redis'.
    pub fn object(self) -> Result<ObjectAnswer<'a>, Failure> {
        match self {
            Self::Object(answer) => answer,
            Self::Redis(_) => Err(Failure::Malformed),
        }
    }
}

/// A step of a surface.
pub type StepOf<'a, S> = Step<'a, <S as Surface>::Read, Receipt<<S as Surface>::Answer>>;

/// What a surface decided.
pub struct Decided<'a, S: Surface + ?Sized> {
    /// What happens next.
    pub step: StepOf<'a, S>,
    /// What the request takes along, if it has to wait.
    pub carried: S::Carried,
    /// Whether a read of others did not serve this request: then only an equal one is shared.
    pub reads_alone: bool,
}

/// Takes one job after the other.
pub type ShowJob<'a, S, C> = dyn FnMut(&mut dyn Job<S, C>) + 'a;

/// One product's API.
pub trait Surface {
    /// A request, borrowed from the header map.
    type Request<'a>: SurfaceRequest<Owned = Self::Request<'static>>;
    /// What has to be read.
    type Read: Read;
    /// What is known when a read is sent.
    type Known;
    /// What a read brought, for all who waited.
    type Landed;
    /// What a request that waits takes along.
    type Carried: Default;
    /// An answer.
    type Answer: Copy;
    /// Something that is counted.
    type Count;

    /// Whether this `:path` is one of the surface's. The match is exact.
    fn owns(&self, path: &[u8]) -> bool;

    /// Reads a request to this `:path`, which is the surface's, from its header fields, pseudo-headers included, in order.
    fn parse<'a>(
        &mut self,
        path: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self::Request<'a>;

    /// A request to this `:path` whose header fields could not be read.
    fn unread(&self, path: &[u8]) -> Self::Request<'static>;

    /// Decides a request as far as that is possible without a read.
    fn start<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self>;

    /// Goes on with a request when its body is there.
    fn body<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        _carried: &Self::Carried,
        _body: &[u8],
        _machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self> {
        Decided {
            step: self.too_long(request),
            carried: Self::Carried::default(),
            reads_alone: false,
        }
    }

    /// Whether a request to this `:path`, one of its own, may go on to an upstream.
    fn forwards(&self, _path: &[u8]) -> bool {
        true
    }

    /// What happens to a request whose body is longer than it may be.
    fn too_long<'r>(&self, request: &'r Self::Request<'_>) -> StepOf<'r, Self> {
        self.undecided(request, Reason::Overloaded)
    }

    /// Goes on with a request when its read is back.
    fn resume<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        carried: &Self::Carried,
        landed: &Self::Landed,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self>;

    /// What happens to a request that cannot be decided, for this reason.
    fn undecided<'r>(&self, request: &'r Self::Request<'_>, reason: Reason) -> StepOf<'r, Self>;

    /// A request needs a read that nobody else has asked for: the answer, when no more such reads may be sent now.
    fn refuses<'r>(
        &mut self,
        read: &Self::Read,
        request: &'r Self::Request<'_>,
        now: Monotonic,
    ) -> Option<StepOf<'r, Self>>;

    /// The read as data. `None` when it cannot be sent with these settings.
    fn fetch(&self, read: &Self::Read) -> Option<Fetch<'_>>;

    /// The terms of a read.
    fn terms(&self, read: &Self::Read) -> Terms;

    /// What is known now of what a read will bring.
    fn known<S: Store>(&self, read: &Self::Read, store: &S) -> Self::Known;

    /// Takes what a read brought, once, and keeps what it teaches. Also says what the callout counts as.
    fn landed<S: Store>(
        &mut self,
        read: &Self::Read,
        sent: SentRead<Self::Known>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> (Self::Landed, Result<(), Failure>);

    /// The next of its reads that asked nobody ([`Question::Own`]) and is done.
    fn finished(&mut self) -> Option<(Self::Read, Self::Landed)> {
        None
    }

    /// Nobody waits any more for a read of its own that asked nobody ([`Question::Own`]).
    fn abandoned(&mut self, _read: &Self::Read) {}

    /// Length of the body that a request will get, as far as that is known before it is answered; 0 when unknown.
    fn length(&self, request: &Self::Request<'_>, landed: &Self::Landed) -> usize;

    /// What a tenant of the surface is called in the log.
    fn tenant_word(answer: &Self::Answer) -> &'static str;

    /// Bytes that what a waiting request takes along takes, beyond its own size.
    fn carried_weight(_carried: &Self::Carried) -> usize {
        0
    }

    /// Whether a body of this length may be handed to the host now.
    fn may_leave(&mut self, request: &Self::Request<'_>, length: usize, now: Monotonic) -> bool;

    /// An answer is on its way: bills it, and counts it.
    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<Self::Answer>,
        request: &Self::Request<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    );

    /// Its regular work that is done without Redis. `is_idle`: nobody waits for an answer that is due.
    fn tick<S: Store>(&mut self, is_idle: bool, machinery: &mut Machinery<'_, S, Self::Count>);

    /// A snapshot became live in this worker.
    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, Self::Count>);

    /// Shows its jobs, always the same ones in the same order.
    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, Self::Count>);

    /// How long until it wants the next tick, its jobs aside.
    fn due_in(&self) -> Duration;

    /// Shows what it keeps of documents, where it has any.
    fn each_documents(
        &self,
        _store: &impl Store,
        _ambient: &dyn Ambient,
        _show: &mut dyn FnMut(Documents),
    ) {
    }

    /// The status of its snapshot, as it was read last.
    fn status(&self) -> &Status;

    /// Ages of what it knows.
    fn ages(&self, now: Monotonic) -> Ages {
        let status = self.status();
        let follow = status.follow.as_ref();
        Ages {
            snapshot: status.live.as_ref().map(|live| live.age(now)),
            watermark: follow.and_then(|follow| follow.watermark_age(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ETag;
    use crate::tenant::Tenant;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn records_of_every_surface_are_readable_and_cut_ones_are_not() {
        let version = posthog::directory::Record::ETag(ETag::new(b"v").unwrap());
        let secret = posthog::directory::Record::TeamSecret(Tenant(1));
        let mut records = vec![version.encode().unwrap(), secret.encode().unwrap()];
        #[cfg(feature = "flagsmith")]
        records.push(flagsmith::records::FlagsmithRecord::ClientKey(Tenant(1)).encode());
        #[cfg(feature = "ofrep")]
        records.push(ofrep::records::OfrepRecord::Selection(Tenant(1)).encode());
        for record in records {
            assert_eq!(check(&record), Ok(()));
            assert!(check(&record[..1]).is_err(), "{record:?}");
        }
    }
}
