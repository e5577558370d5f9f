//! The fingerprint that is stored instead of a signature: it tells two signatures apart, and cannot be used as one.
//!
//! Keeps true: no text from this module holds a possible digest in hex or base64, with or without padding.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// The fingerprint of a signature: `sha256:` and 16 hex digits.
pub fn fingerprint(signature: &[u8]) -> String {
    format!("sha256:{}", hex::encode(&Sha256::digest(signature)[..8]))
}

/// Replaces everything in a text that looks like a signature by its fingerprint. A signature may be in another header
/// than its own.
pub fn without_signatures(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        let word = text[at..].bytes().take_while(|byte| is_of_word(*byte)).count();
        if is_signature(&text[at..at + word]) {
            clean.push_str(&text[copied..at]);
            clean.push_str(&fingerprint(&text.as_bytes()[at..at + word]));
            copied = at + word;
        }
        // Past the word, and past the character that ends it.
        at += word;
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(clean + &text[copied..]) }
}

/// The characters of base64, of base64 for URLs, and of hex.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// Whether a word is as long as a digest, and has 64 hex digits in a row or letters of both cases. Long names of
/// programs and hosts have neither.
fn is_signature(word: &str) -> bool {
    let has = |of: fn(&u8) -> bool| word.as_bytes().iter().any(of);
    let hex = || word.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() >= HEX_DIGEST_LEN);
    word.len() >= BASE64_DIGEST_LEN && (has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) || hex())
}

/// Of 32 bytes, without padding.
const BASE64_DIGEST_LEN: usize = 43;
const HEX_DIGEST_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn a_digest_is_known_in_every_spelling_and_wherever_it_stands() {
        for seed in 0..200_u8 {
            let digest: [u8; 32] = Sha256::digest([seed]).into();
            let (padded, hex) = (STANDARD.encode(digest), hex::encode(digest));
            let bare = padded.trim_end_matches('=');
            let of_url = bare.replace('+', "-").replace('/', "_");
            for spelt in [&*padded, bare, &of_url, &hex, &hex.to_uppercase()] {
                for (before, after) in
                    [("", ""), ("v1,", ""), ("t=1,v1=", ",v2=3"), ("sig_", " é"), ("x/", "/y")]
                {
                    let text = format!("{before}{spelt}{after}");
                    let clean = without_signatures(&text);
                    assert!(
                        clean.contains("sha256:") && !clean.contains(bare) && !clean.contains(&of_url),
                        "{clean}"
                    );
                    assert!(!clean.to_lowercase().contains(&hex), "{clean}");
                }
            }
        }
        assert_eq!(
            without_signatures(&format!("é v1,{} (x)", "aB".repeat(22))),
            format!("é v1,{} (x)", fingerprint("aB".repeat(22).as_bytes()))
        );
    }

    #[test]
    fn no_entry_of_a_list_is_left_however_it_is_joined() {
        let digests: [[u8; 32]; 3] = [1, 2, 3].map(|seed: u8| Sha256::digest([seed]).into());
        for between in [" ", "  ", "\t", ",", ", ", " , ", "\t,", ";", "é", "|", ""] {
            let base64 = digests.map(|digest| format!("v1,{}", STANDARD.encode(digest))).join(between);
            let hex = digests.map(|digest| format!("v1 = {}", hex::encode_upper(digest))).join(between);
            let clean = without_signatures(&base64).into_owned() + &without_signatures(&hex);
            for digest in digests {
                let base64 = STANDARD.encode(digest);
                assert!(
                    !clean.contains(&base64[..32]) && !clean.contains(&hex::encode_upper(digest)[..32]),
                    "{clean}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_signature_stays() {
        for text in [
            "",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
            "88a85f64-5717-4562-b3fc-2c963f66af88",
            "a-host-of-a-cluster-with-a-name-that-is-as-long-as-it-may.example.com",
            "2001:db8::1, 203.0.113.7",
            "é",
        ] {
            assert_eq!(without_signatures(text), text);
        }
    }
}
