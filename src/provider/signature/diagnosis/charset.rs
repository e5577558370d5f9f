//! Text in another character set than the signed one.
//!
//! Keeps true: a conversion gives nothing if the text cannot have come from it. Source of Windows-1252: the WHATWG
//! Encoding Standard, where a byte that the code page leaves out is the control character of the same number.

/// Undoes one encoding as UTF-8: the bytes that, read as Latin-1 or Windows-1252, are this text.
pub(super) fn undo_encoding(body: &[u8]) -> Vec<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let windows: Option<Vec<u8>> = text.chars().map(windows_byte).collect();
    all(latin, windows)
}

/// Encodes as UTF-8 once more: the bytes read as Latin-1 or Windows-1252, and written as UTF-8.
pub(super) fn encode_again(body: &[u8]) -> Vec<Vec<u8>> {
    let latin: String = body.iter().map(|byte| char::from(*byte)).collect();
    let windows: String = body.iter().map(|byte| windows_char(*byte)).collect();
    all(Some(latin.into_bytes()), Some(windows.into_bytes()))
}

/// The text of UTF-16, with or without a byte order mark, as UTF-8.
pub(super) fn from_utf16(body: &[u8]) -> Option<Vec<u8>> {
    let (content, big) = match body {
        [0xff, 0xfe, rest @ ..] => (rest, false),
        [0xfe, 0xff, rest @ ..] => (rest, true),
        // JSON begins with ASCII, which has a byte 0 here.
        [0, first, ..] if *first != 0 => (body, true),
        [first, 0, ..] if *first != 0 => (body, false),
        _ => return None,
    };
    let unit = |pair: &[u8]| {
        let pair = <[u8; 2]>::try_from(pair).ok()?;
        Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let units: Vec<u16> = content.chunks(2).map(unit).collect::<Option<_>>()?;
    String::from_utf16(&units).ok().map(String::into_bytes)
}

fn all(latin: Option<Vec<u8>>, windows: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let windows = windows.filter(|windows| latin.as_ref() != Some(windows));
    latin.into_iter().chain(windows).collect()
}

fn windows_byte(c: char) -> Option<u8> {
    let above = HIGH.iter().position(|high| *high == c).and_then(|at| u8::try_from(at + 0x80).ok());
    above.or_else(|| u8::try_from(u32::from(c)).ok())
}

fn windows_char(byte: u8) -> char {
    let at = usize::from(byte).checked_sub(0x80);
    at.and_then(|at| HIGH.get(at)).copied().unwrap_or(char::from(byte))
}

/// The characters of Windows-1252 from 0x80 to 0x9f.
const HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_8_that_was_encoded_twice_is_undone() {
        for (text, twice) in
            [("Zoë", "ZoÃ«"), ("10 €", "10 â‚¬"), ("naïve", "naÃ¯ve"), ("“q”", "â€œqâ€\u{9d}")]
        {
            assert!(undo_encoding(twice.as_bytes()).contains(&text.as_bytes().to_vec()), "{text}");
            assert!(encode_again(text.as_bytes()).contains(&twice.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(undo_encoding("Zoë".as_bytes()), [b"Zo\xeb"]);
        assert!(undo_encoding("日本".as_bytes()).is_empty() && undo_encoding(b"\xff").is_empty());
    }

    #[test]
    fn utf_16_is_read_with_and_without_its_mark() {
        let units: Vec<u16> = "{\"ë\":1}".encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for body in [&little, &big, &[&b"\xff\xfe"[..], &little].concat(), &[&b"\xfe\xff"[..], &big].concat()]
        {
            assert_eq!(from_utf16(body).as_deref(), Some("{\"ë\":1}".as_bytes()));
        }
        assert!(
            from_utf16(b"{}").is_none() && from_utf16(&little[1..]).is_none() && from_utf16(b"").is_none()
        );
    }
}
