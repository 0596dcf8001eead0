//! The answers of a surface as one table.

/// Makes an enum of answers and its table of these rows: name, status, label, content. Places in the metrics follow their order,
/// so a new row goes last. Behind them come those of what is away, one for each reason, whose content a function says.
macro_rules! answers {
    (
        $(#[$enum_doc:meta])* $answer:ident, unavailable: $unavailable:path;
        $($(#[$doc:meta])* $name:ident: $status:literal $label:literal $content:expr,)*
    ) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $answer {
            $($(#[$doc])* $name,)*
            /// 503: something that is needed is away.
            Unavailable($crate::surfaces::Reason),
        }

        enum Place {
            $($name,)*
            Unavailable,
        }

        impl $answer {
            const DECIDED: [Self; Place::Unavailable as usize] = [$(Self::$name,)*];

            /// How many there are.
            pub const COUNT: usize = Self::DECIDED.len() + $crate::surfaces::Reason::ALL.len();

            /// All answers, in the order of their numbers.
            pub fn all() -> impl Iterator<Item = Self> {
                let unavailable = $crate::surfaces::Reason::ALL.into_iter().map(Self::Unavailable);
                Self::DECIDED.into_iter().chain(unavailable)
            }

            /// A number below `COUNT`.
            pub const fn number(self) -> usize {
                match self {
                    $(Self::$name => Place::$name as usize,)*
                    Self::Unavailable(reason) => Place::Unavailable as usize + reason as usize,
                }
            }

            /// HTTP status code.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Unavailable(_) => 503,
                }
            }

            /// Name in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                    Self::Unavailable(reason) => reason.label(),
                }
            }

            /// Content type and text, where they are fixed.
            const fn content(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$name => $content,)*
                    Self::Unavailable(reason) => $unavailable(reason),
                }
            }
        }
    };
}

pub(crate) use answers;
