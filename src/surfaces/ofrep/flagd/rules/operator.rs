//! The names of operators.

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    If,
    Map,
    Filter,
    Reduce,
    All,
    None,
    Some,
    Var,
    Missing,
    MissingSome,
    Equal,
    NotEqual,
    Same,
    NotSame,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Not,
    Truth,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Absolute,
    Min,
    Max,
    In,
    Cat,
    Substr,
    Merge,
    Set,
    ContainsAll,
    ContainsAny,
    ContainsNone,
    Fractional,
    SemVer,
    StartsWith,
    EndsWith,
}

impl Operator {
    /// The operator of this name; case counts.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "if" | "?:" => Self::If,
            "map" => Self::Map,
            "filter" => Self::Filter,
            "reduce" => Self::Reduce,
            "all" => Self::All,
            "none" => Self::None,
            "some" => Self::Some,
            "var" => Self::Var,
            "missing" => Self::Missing,
            "missing_some" => Self::MissingSome,
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "===" => Self::Same,
            "!==" => Self::NotSame,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "!" => Self::Not,
            "!!" => Self::Truth,
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            "%" => Self::Remainder,
            "abs" => Self::Absolute,
            "min" => Self::Min,
            "max" => Self::Max,
            "in" => Self::In,
            "cat" => Self::Cat,
            "substr" => Self::Substr,
            "merge" => Self::Merge,
            "set" => Self::Set,
            "contains_all" => Self::ContainsAll,
            "contains_any" => Self::ContainsAny,
            "contains_none" => Self::ContainsNone,
            "fractional" => Self::Fractional,
            "sem_ver" => Self::SemVer,
            "starts_with" => Self::StartsWith,
            "ends_with" => Self::EndsWith,
            _ => return None,
        })
    }

    /// Whether its first argument is a list that the second one looks into.
    pub(super) const fn is_of_lists(self) -> bool {
        matches!(
            self,
            Self::Map | Self::Filter | Self::Reduce | Self::All | Self::None | Self::Some
        )
    }
}
