//! Makes a source's keys from its secrets.
//!
//! Keeps true: a secret becomes a key only of the schemes of its own kind. A slot is a secret's position in the list.

use super::{Builder, SHORT_SECRET};
use crate::config::secret::{Flaw, PUBLIC_KEY_PREFIX, STANDARD_WEBHOOKS_PREFIX, Secret};
use crate::provider::signature::{Key, KeyError, Scheme, SecretForm, Verifier, is_hex_key};
use crate::provider::{Provider, Reader};

impl Builder<'_> {
    /// The provider's schemes, each with the keys of the secrets that are of its kind. Empty: the source has no secrets.
    pub(super) fn verifiers(&mut self, provider: &Provider) -> Vec<Verifier> {
        let schemes = provider.signing.schemes();
        let Some(first) = self.of.secrets.first() else { return Vec::new() };
        if schemes.is_empty() {
            let what =
                format!("{} publishes no signature to verify with a secret; use path_token", provider.name);
            self.error(first, "secrets", what);
            return Vec::new();
        }
        if let Some(extra) = self.of.secrets.get(MAX_SECRETS) {
            self.error(extra, "secrets", format!("a source takes up to {MAX_SECRETS} secrets"));
        }
        let accept_old = self.of.accept_v1.as_ref().is_some_and(|accept| accept.value);
        let verifier =
            |scheme: &Scheme| Verifier { scheme: Scheme { accept_old, ..*scheme }, keys: Vec::new() };
        let mut verifiers: Vec<Verifier> = schemes.iter().map(verifier).collect();
        self.check_public_url(provider);
        for (slot, secret) in self.of.secrets.iter().enumerate() {
            let dated = &secret.value;
            let Some(text) = self.resolve_key(secret.at, &dated.reference, provider) else { continue };
            self.warn_of_weakness(slot, provider, &text);
            let added =
                add_key(&mut verifiers, &text, |key| key.at(slot).within(dated.not_before, dated.not_after));
            match added {
                Ok(true) => {}
                Ok(false) => {
                    let kind = SecretKind::of(&text, schemes).name();
                    self.error(secret, "secrets", format!("{kind} cannot be a secret of {}", provider.name));
                }
                Err(error) => self.error(secret, "secrets", error.to_string()),
            }
        }
        verifiers
    }

    /// A URL that is signed needs the address by which the provider reaches the gateway.
    fn check_public_url(&mut self, provider: &Provider) {
        let signs_url = provider.signing.schemes().iter().any(Scheme::covers_url);
        if signs_url && self.config.edge.public_url.is_none() {
            let what = format!(
                "{} signs the URL: set edge.public_url to the address by which it reaches this gateway",
                provider.name
            );
            self.error(&self.of.provider.clone(), "provider", what);
        }
    }

    fn warn_of_weakness(&mut self, slot: usize, provider: &Provider, text: &Secret) {
        let Some(secret) = self.of.secrets.get(slot) else { return };
        let has = |form: SecretForm| provider.signing.schemes().iter().any(|scheme| scheme.secret == form);
        let is_whsec = has(SecretForm::Whsec);
        if has(SecretForm::Text) && !is_whsec && text.expose().len() < SHORT_SECRET {
            let bytes = text.expose().len();
            let what =
                format!("the secret has {bytes} bytes; {} should have {SHORT_SECRET} or more", provider.name);
            self.warn(secret, "secrets", what);
        }
        let is_public = SecretKind::of(text, provider.signing.schemes()) == SecretKind::Public;
        if !is_public && !provider.signs_with_private_keys() && text.decoded(is_whsec).is_some() {
            self.warn(secret, "secrets", TWICE.to_owned());
        }
    }

    /// Reads a secret. Public keys, which look like no secret, are taken where a scheme has one.
    fn resolve_key(
        &mut self,
        at: crate::config::Position,
        reference: &crate::config::secret::SecretRef,
        provider: &Provider,
    ) -> Option<Secret> {
        let schemes = provider.signing.schemes();
        let has_public_key = schemes.iter().any(|scheme| scheme.algorithm.has_public_key());
        // Where a definition takes any text, an operator may have chosen a sentence. The coded providers issue one word.
        let is_coded = matches!(provider.reader, Reader::Code { .. });
        let takes_sentences = !is_coded && schemes.iter().any(|scheme| scheme.secret == SecretForm::Text);
        self.resolve_unless(at, reference, "secrets", |flaw| match flaw {
            Flaw::Pem | Flaw::PublicKey => has_public_key,
            Flaw::BlankInside => takes_sentences,
            _ => false,
        })
    }
}

/// The verifiers of a provider with these secrets, for a trial without a source.
///
/// # Errors
/// If a secret is none of the provider's.
pub fn verifiers(provider: &Provider, secrets: &[Secret]) -> Result<Vec<Verifier>, KeyError> {
    let schemes = provider.signing.schemes();
    let mut verifiers: Vec<Verifier> =
        schemes.iter().map(|scheme| Verifier { scheme: *scheme, keys: Vec::new() }).collect();
    for (slot, secret) in secrets.iter().enumerate() {
        add_key(&mut verifiers, secret, |key| key.at(slot))?;
    }
    Ok(verifiers)
}

/// Adds a secret's keys to the schemes of its kind. Returns whether there is one.
fn add_key(
    verifiers: &mut [Verifier],
    secret: &Secret,
    dated: impl Fn(Key) -> Key,
) -> Result<bool, KeyError> {
    let schemes: Vec<Scheme> = verifiers.iter().map(|verifier| verifier.scheme).collect();
    let takers = SecretKind::of(secret, &schemes).takers(&schemes);
    let (mut failed, mut used) = (None, false);
    for verifier in verifiers.iter_mut().filter(|verifier| takers(&verifier.scheme)) {
        match Key::new(&verifier.scheme, secret) {
            Ok(key) => {
                verifier.keys.push(dated(key));
                used = true;
            }
            // Of a public key, the scheme of its kind says the most.
            Err(error) if verifier.scheme.algorithm.has_public_key() => failed = Some(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.filter(|_| !used).map_or(Ok(used), Err)
}

/// What a secret evidently is, by its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretKind {
    /// `whsec_…`.
    Whsec,
    /// `whpk_…`, a text that reads as a public key for a scheme of the provider, or hex of an Ed25519 key for Standard
    /// Webhooks.
    Public,
    /// Any other text.
    Plain,
}

impl SecretKind {
    fn of(secret: &Secret, schemes: &[Scheme]) -> SecretKind {
        let text = secret.expose();
        let is_prefixed = |scheme: &Scheme| matches!(scheme.secret, SecretForm::PublicKey { prefixed: true });
        if text.starts_with(STANDARD_WEBHOOKS_PREFIX) {
            SecretKind::Whsec
        } else if text.starts_with(PUBLIC_KEY_PREFIX)
            || Key::is_public(text, schemes)
            || is_hex_key(text) && schemes.iter().any(is_prefixed)
        {
            SecretKind::Public
        } else {
            SecretKind::Plain
        }
    }

    fn name(self) -> &'static str {
        match self {
            SecretKind::Whsec => "a whsec_ secret",
            SecretKind::Public => "a public key",
            SecretKind::Plain => "this text",
        }
    }

    /// Which of the schemes take a secret of this kind. A text that could be a secret or a public key is a secret, if
    /// there is a scheme for one.
    fn takers(self, schemes: &[Scheme]) -> impl Fn(&Scheme) -> bool + use<> {
        let is_whsec = |scheme: &Scheme| scheme.secret == SecretForm::Whsec;
        let is_secret = |scheme: &Scheme| !scheme.algorithm.has_public_key();
        let has_whsec = schemes.iter().any(is_whsec);
        let has_other_secret = schemes.iter().any(|scheme| is_secret(scheme) && !is_whsec(scheme));
        let has_secret = schemes.iter().any(is_secret);
        let has_public_key = schemes.iter().any(|scheme| scheme.algorithm.has_public_key());
        move |scheme| match self {
            // Where no scheme has a public key, each says that this is one.
            SecretKind::Public => has_public_key == scheme.algorithm.has_public_key(),
            SecretKind::Whsec if has_whsec => is_whsec(scheme),
            SecretKind::Whsec => is_secret(scheme),
            SecretKind::Plain if has_other_secret => is_secret(scheme) && !is_whsec(scheme),
            SecretKind::Plain if has_secret => is_secret(scheme),
            SecretKind::Plain => true,
        }
    }
}

/// The most secrets of a source.
const MAX_SECRETS: usize = 8;
const TWICE: &str = "the secret decodes from base64 to a text that is a secret itself: it was probably base64-encoded twice; store the \
    decoded text (in Kubernetes, data takes the secret base64-encoded once, stringData takes it unencoded)";
