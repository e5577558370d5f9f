//! Determines what authenticates a source.
//!
//! Keeps true: a source without authentication is served only with `unauthenticated = true`, and never without a
//! warning.

use super::Builder;
use crate::base::peer;
use crate::provider::signature::VerifiedBy;
use crate::provider::{Provider, Signing};

impl Builder<'_> {
    /// What authenticates the source. If nothing does, reports a problem and returns none.
    pub(super) fn verified_by(
        &mut self,
        provider: &Provider,
        certificate: bool,
        token: bool,
    ) -> Option<VerifiedBy> {
        let of = self.of;
        if let Some(scheme) = provider.signing.schemes().first().filter(|_| !of.secrets.is_empty()) {
            return Some(scheme.verified_by);
        }
        if ["secrets", "client_certificate", "path_token", "allow_ips"].iter().any(|key| self.reported(key)) {
            // The broken key may be meant to authenticate it, so report no second problem.
            return None;
        }
        let name = provider.name;
        let open = of.unauthenticated.value;
        let otherwise = match provider.signing {
            Signing::Always(_) if of.secrets.is_empty() => {
                Err(format!("{name} signs its deliveries: set secrets = [{{ env = \"NAME\" }}]"))
            }
            Signing::Always(_) => return None,
            _ if certificate => Ok(VerifiedBy::ClientCertificate),
            _ if token => Ok(VerifiedBy::PathToken),
            Signing::Sometimes(_) if !open => Err(format!(
                "{name} needs secrets, or where it does not sign path_token = {{ env = \"NAME\" }} or client_certificate"
            )),
            _ if !of.allow_ips.is_empty() && !peer::covers_all(&of.allow_ips) => Ok(VerifiedBy::ClientAddress),
            _ if open => Ok(VerifiedBy::Nothing),
            _ if !of.allow_ips.is_empty() => Err(
                "nothing authenticates this source, since allow_ips allows every address: list the sender's own networks, \
                or set path_token = { env = \"NAME\" } or client_certificate, or unauthenticated = true"
                    .to_owned(),
            ),
            _ => Err(
                "nothing authenticates this source: set path_token = { env = \"NAME\" }, client_certificate \
                or allow_ips, or unauthenticated = true"
                    .to_owned(),
            ),
        };
        otherwise.map_err(|what| self.error(&of.name, "secrets", what)).ok()
    }

    /// Warns about the effect of `unauthenticated = true`.
    pub(super) fn check_unauthenticated(&mut self, provider: &Provider, verified_by: VerifiedBy) {
        let flag = &self.of.unauthenticated;
        if !flag.value {
            return;
        }
        let what = match verified_by {
            VerifiedBy::Nothing => {
                "nothing authenticates this source: any client that reaches it can create events; \
                for tests only"
                    .to_owned()
            }
            // Here `unauthenticated` has an effect: without it, allow_ips alone would not suffice.
            VerifiedBy::ClientAddress if matches!(provider.signing, Signing::Sometimes(_)) => {
                "nothing but allow_ips authenticates this source: any client in those networks can create events"
                    .to_owned()
            }
            by => {
                let key = match by {
                    VerifiedBy::ClientCertificate => "client_certificate",
                    VerifiedBy::PathToken => "path_token",
                    VerifiedBy::ClientAddress => "allow_ips",
                    _ => "secrets",
                };
                format!("no effect beside {key}, which every delivery must still satisfy; leave it out")
            }
        };
        self.warn(flag, "unauthenticated", what);
    }
}
