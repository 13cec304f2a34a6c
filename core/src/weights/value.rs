//! The values that a PyTorch file holds, as plain data: dicts, lists, numbers and tensors.

use crate::Array;

/// Calls of Python's standard library that messages do not name, because a more important call may
/// follow.
const HARMLESS: [&str; 4] =
    ["__builtin__.set", "builtins.set", "collections.OrderedDict", "_codecs.encode"];

/// A value of a PyTorch file.
#[derive(Debug)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Str(String),
    /// Bytes, or an integer of more than 64 bits. Their content is not needed.
    Bytes,
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dict or an `OrderedDict`, in its order.
    Dict {
        /// The pairs of key and value.
        items: Vec<(Value, Value)>,
        /// The attributes of an `OrderedDict`, such as `_metadata`.
        attributes: Option<Vec<(String, Value)>>,
    },
    /// A tensor.
    Tensor(Array),
    /// A tensor of a kind that cannot be read, described in a few words such as "a quantised
    /// tensor".
    Foreign(String),
    /// The name of a class or function, which is never imported.
    Global(String),
    /// Anything else: an object that was not created, or a call that was not run.
    Object {
        /// `module.name` of the class or function.
        class: String,
        /// The state that the object would have been given; `None` for a call.
        state: Option<Box<Value>>,
    },
}

impl Value {
    /// Creates a dict with string keys.
    pub fn dict<K: Into<String>>(items: impl IntoIterator<Item = (K, Value)>) -> Self {
        let items = items.into_iter().map(|(key, value)| (Self::Str(key.into()), value)).collect();
        Self::Dict { items, attributes: None }
    }

    /// Returns the items of a dict.
    pub fn items(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Dict { items, .. } => Some(items),
            _ => None,
        }
    }

    /// Returns the value under a string key of a dict.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.items()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// Returns the string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the number, if this is a float or an integer.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Returns the tensor, if this is one.
    pub fn as_tensor(&self) -> Option<&Array> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Describes the value in a few words for messages: "a list", "a call of `os.system` (not
    /// run)".
    pub fn describe(&self) -> String {
        let what = match self {
            Self::None => "None".to_owned(),
            Self::Bool(_) => "a bool".to_owned(),
            Self::Int(_) => "an integer".to_owned(),
            Self::Float(_) => "a float".to_owned(),
            Self::Str(_) => "a string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Tuple(_) => "a tuple".to_owned(),
            Self::Dict { .. } => "a dict without tensors".to_owned(),
            Self::Tensor(tensor) => format!("a single tensor of shape {:?}", tensor.shape()),
            Self::Foreign(what) => what.clone(),
            Self::Global(name) => format!("the name `{}` (not looked up)", shown(name)),
            Self::Object { class, state: Some(_) } => format!("an object of `{}`", shown(class)),
            Self::Object { class, state: None } => {
                return format!("a call of `{}` (not run)", shown(class));
            }
        };
        match self.call() {
            Some(call) => format!("{what}, with {call}"),
            None => what,
        }
    }

    /// Describes the first call within the value that was not run, or the NumPy arrays in it.
    fn call(&self) -> Option<String> {
        match self {
            Self::Object { class, .. } if class.starts_with("numpy.") => {
                Some("NumPy arrays".to_owned())
            }
            Self::Object { class, state: None } if HARMLESS.contains(&class.as_str()) => None,
            Self::Object { state: None, .. } => Some(self.describe()),
            Self::Object { state: Some(state), .. } => state.call(),
            Self::List(items) | Self::Tuple(items) => items.iter().find_map(Self::call),
            Self::Dict { items, .. } => items.iter().find_map(|(_, value)| value.call()),
            _ => None,
        }
    }
}

/// Makes a name from a file safe to print: control characters are escaped, and characters after the
/// 80th are left out.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push_str("...");
    }
    text
}
