//! Names of an enum's values, for metrics, logs and keys.

/// Lists all values of an enum without fields, with the label of each, and gives it `ALL` and `label`.
///
/// The list has the values in the order of their discriminants: it does not compile when one is missing, comes twice or
/// out of its order.
///
/// ```text
/// labels! {
///     Budget {
///         Full: "full",
///         Conditional: "conditional",
///     }
/// }
/// ```
macro_rules! labels {
    ($name:ident { $($value:ident: $label:literal),+ $(,)? }) => {
        impl $name {
            /// All values, in the order of their discriminants.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$value),+];

            /// Name in metrics, logs and keys.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $label),+
                }
            }
        }

        const _: () = {
            let mut rest: &[$name] = &$name::ALL;
            let mut place = 0;
            while let [first, after @ ..] = rest {
                assert!(*first as usize == place);
                place += 1;
                rest = after;
            }
        };
    };
}

pub(crate) use labels;

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Light {
        Red,
        Green,
    }

    labels! {
        Light {
            Red: "stop",
            Green: "go",
        }
    }

    #[test]
    fn all_values_are_listed_in_order_with_their_labels() {
        assert_eq!(Light::ALL, [Light::Red, Light::Green]);
        assert_eq!(Light::ALL.map(Light::label), ["stop", "go"]);
    }
}
