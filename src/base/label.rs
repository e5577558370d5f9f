//! Enums whose values are labels of metric series or of records.
//!
//! Keeps true: each value is declared once with its text, and the lists of all values and texts are generated.

/// An enum declared by `labels!`.
pub trait Label: Copy + 'static {
    /// Every value, in the order of declaration.
    const ALL: &'static [Self];
    /// The texts of all values, in the order of declaration.
    const LABELS: &'static [&'static str];

    /// The value's index in `ALL`.
    fn index(self) -> usize;
}

/// Declares an enum with a text for each value.
macro_rules! labels {
    ($(#[$about:meta])* $pub:vis enum $Label:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $pub enum $Label { $($(#[$doc])* $value,)+ }

        impl $Label {
            /// The value's text.
            $pub const fn label(self) -> &'static str {
                match self { $($Label::$value => $text,)+ }
            }
        }

        impl crate::base::label::Label for $Label {
            const ALL: &'static [Self] = &[$($Label::$value),+];
            const LABELS: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

/// The labels `source` and `provider` of requests to no configured source.
pub const UNKNOWN: &str = "unknown";

/// The category of an event whose type its provider's table does not list.
pub const UNMAPPED: &str = "unmapped";
