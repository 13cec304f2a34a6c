//! What a file says, as plain data: dicts, lists, numbers and tensors.

use crate::Array;

/// Calls of Python's own that messages do not name: they may stand before one that matters.
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
    /// A float.
    Float(f64),
    /// A string.
    Str(String),
    /// Bytes, or an integer of more than 64 bits, which are of no use here.
    Bytes,
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dict or an `OrderedDict`, in order.
    Dict {
        /// Keys and values.
        items: Vec<(Value, Value)>,
        /// The attributes of an `OrderedDict`, such as `_metadata`.
        attributes: Option<Vec<(String, Value)>>,
    },
    /// A tensor.
    Tensor(Array),
    /// A tensor of a kind that is not read, in a few words: "a quantised tensor".
    Foreign(String),
    /// The name of a class or function, not looked up.
    Global(String),
    /// Anything else: an object that was not made, or a call that was not run.
    Object {
        /// `module.name` of the class or function.
        class: String,
        /// What it would have been given as its state.
        state: Option<Box<Value>>,
    },
}

impl Value {
    /// A dict with string keys.
    pub fn dict<K: Into<String>>(items: impl IntoIterator<Item = (K, Value)>) -> Self {
        let items = items.into_iter().map(|(key, value)| (Self::Str(key.into()), value)).collect();
        Self::Dict { items, attributes: None }
    }

    /// The items of a dict.
    pub fn items(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Dict { items, .. } => Some(items),
            _ => None,
        }
    }

    /// The value at a string key of a dict.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.items()?.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The tensor.
    pub fn as_tensor(&self) -> Option<&Array> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// In a few words, for messages: "a list", "a call of `os.system` (not run)".
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

    /// The first call in it that was not run, in words; or what numbers it holds beside tensors.
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

/// A name from a file as it is fit to print: no control characters, at most 80 characters.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push_str("...");
    }
    text
}
