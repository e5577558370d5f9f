//! A delivery's body that came out of a provider's own API, and not by a delivery.
//!
//! Keeps true: such a body counts as verified, because TLS named the provider's server and the configured key opened the
//! API. So no other bytes may become one. The type has two makers, and `tests/pure/layers.rs` names the only caller of
//! each.

/// A body that a provider's API handed over.
pub struct ProviderApiPayload(Vec<u8>);

impl ProviderApiPayload {
    /// For the log that an API client reads.
    pub(crate) fn out_of_a_log(body: Vec<u8>) -> ProviderApiPayload {
        ProviderApiPayload(body)
    }

    /// For an order by which a command hands such a body to the running gateway. Orders are rows of `hookgate.db` in
    /// `data_dir`, which only the gateway's own user can open (mode 0700). That user could as well write into the queue,
    /// so an order is trusted as the queue is.
    pub(crate) fn out_of_an_order(body: Vec<u8>) -> ProviderApiPayload {
        ProviderApiPayload(body)
    }

    /// The bytes.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0
    }
}

/// Says that a [`ProviderApiPayload`] was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver(());

impl HandedOver {
    pub(super) fn of(_: &ProviderApiPayload) -> HandedOver {
        HandedOver(())
    }
}

impl std::fmt::Debug for ProviderApiPayload {
    /// Without the body.
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "a payload of {} bytes", self.0.len())
    }
}
