//! Enums whose values are labels: of a metric's series, or of a record.
//!
//! Keeps true: a value and its text are one row, and the lists of all values and of all texts are made of the rows.

/// An enum that `labels!` declares.
pub trait Label: Copy + 'static {
    /// Every value, in the order of the rows.
    const ALL: &'static [Self];
    /// The texts of all values, in the order of the rows.
    const LABELS: &'static [&'static str];

    /// Its place among the rows.
    fn index(self) -> usize;
}

/// Declares an enum with the text of each value.
macro_rules! labels {
    ($(#[$about:meta])* $pub:vis enum $Label:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $pub enum $Label { $($(#[$doc])* $value,)+ }

        impl $Label {
            /// Its text.
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

/// The source and the provider of what belongs to no source of the config.
pub const UNKNOWN: &str = "unknown";

/// The category of an event whose type is not in its provider's table.
pub const UNMAPPED: &str = "unmapped";
