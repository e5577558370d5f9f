//! The configured dedupe store: each step goes to the store of its kind.

use super::records::Records;
use super::{Claim, EmbeddedClaims, EntryKind, Options, RedisClaims};
use crate::durable::inbox::{EnqueueError, EnqueueRequest};

/// The configured dedupe store.
pub enum Claims {
    /// Tables of the database in the data folder.
    Embedded(EmbeddedClaims),
    /// Redis.
    Redis(RedisClaims),
}

impl Claims {
    /// Looks up the identity, and claims it if it may be published. An error means that nothing may be published.
    pub(super) async fn claim(
        &self,
        request: &EnqueueRequest,
        options: &Options,
    ) -> Result<Claim, EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.claim(request, options).await,
            Claims::Redis(claims) => claims.claim(request, options).await,
        }
    }

    /// Remembers the body and ends the owner's claim. Does nothing while another owner's claim lasts.
    pub(super) async fn commit(
        &self,
        request: &EnqueueRequest,
        kind: EntryKind,
        options: &Options,
    ) -> Result<(), EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.commit(request, kind, options).await,
            Claims::Redis(claims) => claims.commit(request, kind, options).await,
        }
    }

    /// Ends this owner's claim. If the body was `claimed_before`, only the lease ends, because the earlier try's
    /// outcome is still unknown.
    pub(super) async fn release(
        &self,
        request: &EnqueueRequest,
        claimed_before: bool,
    ) -> Result<(), EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.release(request, claimed_before).await,
            Claims::Redis(claims) => claims.release(request, claimed_before).await,
        }
    }

    /// What is known of the identity. Writes nothing.
    pub(super) async fn records(&self, request: &EnqueueRequest) -> Result<Records, EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.records(request).await,
            Claims::Redis(claims) => claims.records(request).await,
        }
    }

    pub(super) async fn close(self) {
        match self {
            Claims::Embedded(claims) => claims.close().await,
            Claims::Redis(claims) => claims.close().await,
        }
    }
}
