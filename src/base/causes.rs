//! The causes of an error, from the error itself to the innermost one.

use std::error::Error;
use std::io;
use std::iter::successors;

/// The error and its causes.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |cause| inner(*cause))
}

/// The cause of an error. `io::Error::source` skips the error that it wraps, so this asks `get_ref` first.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(carried) => Some(carried),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_an_io_error_carries_is_a_cause() {
        let wrapped = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        let found: Vec<_> = causes(&wrapped).filter_map(|cause| cause.downcast_ref::<io::Error>()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].kind(), io::ErrorKind::ConnectionRefused);
    }
}
