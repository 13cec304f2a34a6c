//! Settings with a fixed set of named values.

/// A setting with a fixed set of values, each with the name that files and command lines use.
pub trait Choice: Copy + PartialEq + Send + Sync + 'static {
    /// All values, each with its name and a short description.
    const CHOICES: &'static [(Self, &'static str, &'static str)];

    /// The name of this value.
    fn name(self) -> &'static str {
        let (_, name, _) =
            Self::CHOICES.iter().find(|(value, ..)| *value == self).expect("all values are listed");
        name
    }

    /// The value with this name.
    ///
    /// # Errors
    /// If there is no such value; the message lists the names.
    fn from_name(name: &str) -> Result<Self, String> {
        Self::CHOICES
            .iter()
            .find(|(_, other, _)| *other == name)
            .map(|(value, ..)| *value)
            .ok_or_else(|| {
                let names: Vec<_> = Self::CHOICES.iter().map(|(_, name, _)| *name).collect();
                format!("expected {}, found {name}", names.join(", "))
            })
    }
}

/// Implements [`Choice`](crate::Choice), `Display` and `FromStr` for an enum.
#[doc(hidden)]
#[macro_export]
macro_rules! choices {
    ($type:ty { $($variant:ident = $name:literal: $help:literal,)* }) => {
        impl $crate::Choice for $type {
            const CHOICES: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$variant, $name, $help)),*];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::Choice::name(*self))
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> std::result::Result<Self, String> {
                $crate::Choice::from_name(name)
            }
        }
    };
}
