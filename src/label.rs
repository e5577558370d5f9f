//! Enums whose values are labels: of a metric's series, or of a record.
//!
//! Keeps true: a value and its text are one row, and the list of all values is made of the rows.

/// Declares an enum with the text of each value.
macro_rules! labels {
    ($(#[$about:meta])* pub enum $Label:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Label { $($(#[$doc])* $value,)+ }

        impl $Label {
            /// Every value, in the order of the rows.
            pub const ALL: &'static [$Label] = &[$($Label::$value),+];

            /// Its text.
            pub const fn label(self) -> &'static str {
                match self { $($Label::$value => $text,)+ }
            }
        }
    };
}

pub(crate) use labels;

/// The source and the provider of what belongs to no source of the config.
pub const UNKNOWN: &str = "unknown";
