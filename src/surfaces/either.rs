//! Something of one of two surfaces.

use super::{Read, SurfaceRequest};

/// Something of one of two surfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Either<A, B> {
    /// Of the first.
    First(A),
    /// Of the second.
    Second(B),
}

impl<A: SurfaceRequest, B: SurfaceRequest> SurfaceRequest for Either<A, B> {
    type Owned = Either<A::Owned, B::Owned>;

    fn weight(&self) -> usize {
        match self {
            Self::First(request) => request.weight(),
            Self::Second(request) => request.weight(),
        }
    }

    fn into_owned(self) -> Self::Owned {
        match self {
            Self::First(request) => Either::First(request.into_owned()),
            Self::Second(request) => Either::Second(request.into_owned()),
        }
    }

    fn gets_no_body(&self) -> bool {
        match self {
            Self::First(request) => request.gets_no_body(),
            Self::Second(request) => request.gets_no_body(),
        }
    }
}

impl<A: Read, B: Read> Read for Either<A, B> {
    fn unconditional(&self) -> Option<Self> {
        match self {
            Self::First(read) => read.unconditional().map(Self::First),
            Self::Second(read) => read.unconditional().map(Self::Second),
        }
    }
}
