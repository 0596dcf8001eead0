//! Two surfaces as one, so that a worker serves all that are switched on. A request belongs to the first one that owns its path.

use std::time::Duration;

use crate::documents::Documents;
use crate::redis::Failure;
use crate::shared::{Ambient, Machinery, NarrowJob, Store};
use crate::snapshot::status::Status;
use crate::time::Monotonic;

use super::{
    Decided, Either, Fetch, Reason, Receipt, Received, SentRead, ShowJob, Step, StepOf, Surface,
    Terms,
};

/// Two surfaces.
pub struct Pair<A, B> {
    /// The one that is asked first.
    pub first: A,
    /// The other.
    pub second: B,
}

/// What a waiting request takes along: nothing, until its surface gave it something.
pub struct Carried<A, B>(Option<Either<A, B>>);

impl<A, B> Default for Carried<A, B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<A: Surface, B: Surface> Pair<A, B> {
    fn of_first<'r>(decided: Decided<'r, A>) -> Decided<'r, Self> {
        Decided {
            step: first::<A, B>(decided.step),
            carried: Carried(Some(Either::First(decided.carried))),
            reads_alone: decided.reads_alone,
        }
    }

    fn of_second<'r>(decided: Decided<'r, B>) -> Decided<'r, Self> {
        Decided {
            step: second::<A, B>(decided.step),
            carried: Carried(Some(Either::Second(decided.carried))),
            reads_alone: decided.reads_alone,
        }
    }
}

/// A step of the first surface.
fn first<'r, A: Surface, B: Surface>(step: StepOf<'r, A>) -> StepOf<'r, Pair<A, B>> {
    mapped(step, Either::First, Either::First)
}

/// A step of the second surface.
fn second<'r, A: Surface, B: Surface>(step: StepOf<'r, B>) -> StepOf<'r, Pair<A, B>> {
    mapped(step, Either::Second, Either::Second)
}

fn mapped<'r, R, A: Copy, S, B>(
    step: Step<'r, R, Receipt<A>>,
    read: impl FnOnce(R) -> S,
    answer: impl FnOnce(A) -> B,
) -> Step<'r, S, Receipt<B>> {
    match step {
        Step::Reply(response, receipt) => {
            let answer = answer(receipt.answer);
            Step::Reply(response, receipt_of(answer, &receipt))
        }
        Step::Forward(reason) => Step::Forward(reason),
        Step::Read(needed) => Step::Read(read(needed)),
        Step::Body { max_bytes, tenant } => Step::Body { max_bytes, tenant },
    }
}

fn receipt_of<A, B>(answer: B, receipt: &Receipt<A>) -> Receipt<B> {
    Receipt {
        answer,
        tenant: receipt.tenant,
        billed: receipt.billed,
    }
}

/// A request that meets what is the other surface's: the worker never brings them together.
fn astray<'r, 'q, A: Surface, B: Surface>(
    pair: &Pair<A, B>,
    request: &'r Either<A::Request<'q>, B::Request<'q>>,
) -> Decided<'r, Pair<A, B>> {
    Decided {
        step: pair.undecided(request, Reason::SharedData),
        carried: Carried::default(),
        reads_alone: false,
    }
}

impl<A: Surface, B: Surface> Surface for Pair<A, B> {
    type Request<'a> = Either<A::Request<'a>, B::Request<'a>>;
    type Read = Either<A::Read, B::Read>;
    type Known = Either<A::Known, B::Known>;
    type Landed = Either<A::Landed, B::Landed>;
    type Carried = Carried<A::Carried, B::Carried>;
    type Answer = Either<A::Answer, B::Answer>;
    type Count = Either<A::Count, B::Count>;

    fn owns(&self, path: &[u8]) -> bool {
        self.first.owns(path) || self.second.owns(path)
    }

    fn parse<'a>(
        &mut self,
        path: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self::Request<'a> {
        match self.first.owns(path) {
            true => Either::First(self.first.parse(path, fields)),
            false => Either::Second(self.second.parse(path, fields)),
        }
    }

    fn unread(&self, path: &[u8]) -> Self::Request<'static> {
        match self.first.owns(path) {
            true => Either::First(self.first.unread(path)),
            false => Either::Second(self.second.unread(path)),
        }
    }

    fn start<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self> {
        match request {
            Either::First(request) => {
                Self::of_first(machinery.narrowed(Either::First, |machinery| {
                    self.first.start(request, machinery)
                }))
            }
            Either::Second(request) => {
                Self::of_second(machinery.narrowed(Either::Second, |machinery| {
                    self.second.start(request, machinery)
                }))
            }
        }
    }

    fn body<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        carried: &Self::Carried,
        body: &[u8],
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self> {
        match (request, &carried.0) {
            (Either::First(request), Some(Either::First(carried))) => {
                Self::of_first(machinery.narrowed(Either::First, |machinery| {
                    self.first.body(request, carried, body, machinery)
                }))
            }
            (Either::Second(request), Some(Either::Second(carried))) => {
                Self::of_second(machinery.narrowed(Either::Second, |machinery| {
                    self.second.body(request, carried, body, machinery)
                }))
            }
            _ => astray(self, request),
        }
    }

    fn resume<'r, S: Store>(
        &mut self,
        request: &'r Self::Request<'_>,
        carried: &Self::Carried,
        landed: &Self::Landed,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> Decided<'r, Self> {
        match (request, &carried.0, landed) {
            (Either::First(request), Some(Either::First(carried)), Either::First(landed)) => {
                Self::of_first(machinery.narrowed(Either::First, |machinery| {
                    self.first.resume(request, carried, landed, machinery)
                }))
            }
            (Either::Second(request), Some(Either::Second(carried)), Either::Second(landed)) => {
                Self::of_second(machinery.narrowed(Either::Second, |machinery| {
                    self.second.resume(request, carried, landed, machinery)
                }))
            }
            _ => astray(self, request),
        }
    }

    fn undecided<'r>(&self, request: &'r Self::Request<'_>, reason: Reason) -> StepOf<'r, Self> {
        match request {
            Either::First(request) => first::<A, B>(self.first.undecided(request, reason)),
            Either::Second(request) => second::<A, B>(self.second.undecided(request, reason)),
        }
    }

    fn forwards(&self, path: &[u8]) -> bool {
        match self.first.owns(path) {
            true => self.first.forwards(path),
            false => self.second.forwards(path),
        }
    }

    fn too_long<'r>(&self, request: &'r Self::Request<'_>) -> StepOf<'r, Self> {
        match request {
            Either::First(request) => first::<A, B>(self.first.too_long(request)),
            Either::Second(request) => second::<A, B>(self.second.too_long(request)),
        }
    }

    fn refuses<'r>(
        &mut self,
        read: &Self::Read,
        request: &'r Self::Request<'_>,
        now: Monotonic,
    ) -> Option<StepOf<'r, Self>> {
        match (read, request) {
            (Either::First(read), Either::First(request)) => {
                self.first.refuses(read, request, now).map(first::<A, B>)
            }
            (Either::Second(read), Either::Second(request)) => {
                self.second.refuses(read, request, now).map(second::<A, B>)
            }
            _ => None,
        }
    }

    fn fetch(&self, read: &Self::Read) -> Option<Fetch<'_>> {
        match read {
            Either::First(read) => self.first.fetch(read),
            Either::Second(read) => self.second.fetch(read),
        }
    }

    fn terms(&self, read: &Self::Read) -> Terms {
        match read {
            Either::First(read) => self.first.terms(read),
            Either::Second(read) => self.second.terms(read),
        }
    }

    fn known<S: Store>(&self, read: &Self::Read, store: &S) -> Self::Known {
        match read {
            Either::First(read) => Either::First(self.first.known(read, store)),
            Either::Second(read) => Either::Second(self.second.known(read, store)),
        }
    }

    fn landed<S: Store>(
        &mut self,
        read: &Self::Read,
        sent: SentRead<Self::Known>,
        received: Received<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) -> (Self::Landed, Result<(), Failure>) {
        let at = sent.at;
        match (read, sent.known) {
            (Either::First(read), Either::First(known)) => {
                let sent = SentRead { at, known };
                let (landed, counts_as) = machinery.narrowed(Either::First, |machinery| {
                    self.first.landed(read, sent, received, machinery)
                });
                (Either::First(landed), counts_as)
            }
            (Either::Second(read), Either::Second(known)) => {
                let sent = SentRead { at, known };
                let (landed, counts_as) = machinery.narrowed(Either::Second, |machinery| {
                    self.second.landed(read, sent, received, machinery)
                });
                (Either::Second(landed), counts_as)
            }
            // What is known was asked of the surface that reads: this does not come about.
            (Either::First(read), Either::Second(_)) => {
                let known = self.first.known(read, machinery.store);
                self.landed(
                    &Either::First(read.clone()),
                    SentRead {
                        at,
                        known: Either::First(known),
                    },
                    received,
                    machinery,
                )
            }
            (Either::Second(read), Either::First(_)) => {
                let known = self.second.known(read, machinery.store);
                self.landed(
                    &Either::Second(read.clone()),
                    SentRead {
                        at,
                        known: Either::Second(known),
                    },
                    received,
                    machinery,
                )
            }
        }
    }

    fn finished(&mut self) -> Option<(Self::Read, Self::Landed)> {
        if let Some((read, landed)) = self.first.finished() {
            return Some((Either::First(read), Either::First(landed)));
        }
        let (read, landed) = self.second.finished()?;
        Some((Either::Second(read), Either::Second(landed)))
    }

    fn abandoned(&mut self, read: &Self::Read) {
        match read {
            Either::First(read) => self.first.abandoned(read),
            Either::Second(read) => self.second.abandoned(read),
        }
    }

    fn length(&self, request: &Self::Request<'_>, landed: &Self::Landed) -> usize {
        match (request, landed) {
            (Either::First(request), Either::First(landed)) => self.first.length(request, landed),
            (Either::Second(request), Either::Second(landed)) => {
                self.second.length(request, landed)
            }
            _ => 0,
        }
    }

    fn tenant_word(answer: &Self::Answer) -> &'static str {
        match answer {
            Either::First(answer) => A::tenant_word(answer),
            Either::Second(answer) => B::tenant_word(answer),
        }
    }

    fn carried_weight(carried: &Self::Carried) -> usize {
        match &carried.0 {
            Some(Either::First(carried)) => A::carried_weight(carried),
            Some(Either::Second(carried)) => B::carried_weight(carried),
            None => 0,
        }
    }

    fn may_leave(&mut self, request: &Self::Request<'_>, length: usize, now: Monotonic) -> bool {
        match request {
            Either::First(request) => self.first.may_leave(request, length, now),
            Either::Second(request) => self.second.may_leave(request, length, now),
        }
    }

    fn sent<S: Store>(
        &mut self,
        receipt: &Receipt<Self::Answer>,
        request: &Self::Request<'_>,
        machinery: &mut Machinery<'_, S, Self::Count>,
    ) {
        match (receipt.answer, request) {
            (Either::First(answer), Either::First(request)) => {
                let receipt = receipt_of(answer, receipt);
                machinery.narrowed(Either::First, |machinery| {
                    self.first.sent(&receipt, request, machinery);
                });
            }
            (Either::Second(answer), Either::Second(request)) => {
                let receipt = receipt_of(answer, receipt);
                machinery.narrowed(Either::Second, |machinery| {
                    self.second.sent(&receipt, request, machinery);
                });
            }
            _ => {}
        }
    }

    fn tick<S: Store>(&mut self, is_idle: bool, machinery: &mut Machinery<'_, S, Self::Count>) {
        machinery.narrowed(Either::First, |machinery| {
            self.first.tick(is_idle, machinery)
        });
        machinery.narrowed(Either::Second, |machinery| {
            self.second.tick(is_idle, machinery)
        });
    }

    fn loaded<S: Store>(&mut self, machinery: &mut Machinery<'_, S, Self::Count>) {
        machinery.narrowed(Either::First, |machinery| self.first.loaded(machinery));
        machinery.narrowed(Either::Second, |machinery| self.second.loaded(machinery));
    }

    fn each_job<S: Store>(&mut self, show: &mut ShowJob<'_, S, Self::Count>) {
        self.first.each_job(&mut |job| {
            show(&mut NarrowJob {
                job,
                made: Either::First,
            })
        });
        self.second.each_job(&mut |job| {
            show(&mut NarrowJob {
                job,
                made: Either::Second,
            })
        });
    }

    fn each_documents(
        &self,
        store: &impl Store,
        ambient: &dyn Ambient,
        show: &mut dyn FnMut(Documents),
    ) {
        self.first.each_documents(store, ambient, show);
        self.second.each_documents(store, ambient, show);
    }

    fn due_in(&self) -> Duration {
        self.first.due_in().min(self.second.due_in())
    }

    fn status(&self) -> &Status {
        self.first.status()
    }
}
