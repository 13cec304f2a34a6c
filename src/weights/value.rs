//! What a pickle says, as plain data: dicts, lists, numbers and tensors.

use std::collections::HashMap;
use std::rc::Rc;

use tch::{Kind, Tensor};

use super::pickle::{Id, Node, Pickle};
use crate::{Error, Result};

/// The most bytes of tensors that one file may yield.
pub const MAX_TENSOR_BYTES: u64 = 64 << 20;
const MAX_VALUES: usize = 1_000_000;
const MAX_DEPTH: usize = 100;

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
    /// A tensor on the CPU, contiguous.
    Tensor(Tensor),
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
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// In a few words, for messages: "a dict", "a call to `os.system` (not run)".
    pub fn describe(&self) -> String {
        match self {
            Self::None => "None".to_owned(),
            Self::Bool(_) => "a bool".to_owned(),
            Self::Int(_) => "an integer".to_owned(),
            Self::Float(_) => "a float".to_owned(),
            Self::Str(_) => "a string".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Tuple(_) => "a tuple".to_owned(),
            Self::Dict { .. } => "a dict without LeNet-5's tensors".to_owned(),
            Self::Tensor(tensor) => format!("a single tensor of shape {:?}", tensor.size()),
            Self::Object { class, state: Some(_) } => format!("an object of `{}`", shown(class)),
            Self::Object { class, state: None } => {
                format!("a call of `{}` (not run)", shown(class))
            }
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

/// The element types that are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DType(Kind);

impl DType {
    const STORAGES: [(Kind, &'static str); 8] = [
        (Kind::Float, "FloatStorage"),
        (Kind::Double, "DoubleStorage"),
        (Kind::Half, "HalfStorage"),
        (Kind::BFloat16, "BFloat16Storage"),
        (Kind::Int64, "LongStorage"),
        (Kind::Int, "IntStorage"),
        (Kind::Uint8, "ByteStorage"),
        (Kind::Bool, "BoolStorage"),
    ];

    /// The type of a tensor's elements.
    ///
    /// # Errors
    /// Where it is none that is read and written here.
    pub fn of(kind: Kind) -> Result<Self> {
        match Self::STORAGES.iter().any(|(k, _)| *k == kind) {
            true => Ok(Self(kind)),
            false => Err(Error::Config(format!("tensors of {kind:?} are not supported"))),
        }
    }

    fn from_storage(global: &str) -> Option<Self> {
        let name = global.strip_prefix("torch.")?;
        Self::STORAGES.iter().find(|(_, n)| *n == name).map(|(kind, _)| Self(*kind))
    }

    /// The class of its storage in `torch`.
    pub fn storage(self) -> &'static str {
        Self::STORAGES.iter().find(|(kind, _)| *kind == self.0).expect("one of the list").1
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.0.elt_size_in_bytes()
    }

    /// The elements of a tensor, row-major, little-endian.
    pub fn bytes(self, tensor: &Tensor) -> Result<Vec<u8>> {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let numel = tensor.numel();
        let mut bytes = vec![0; numel * self.size()];
        tensor.f_copy_data_u8(&mut bytes, numel)?;
        Ok(bytes)
    }
}

/// Turns a parsed pickle into values; `storage` yields the bytes of a storage by its key.
///
/// # Errors
/// Where a tensor's description is not sound, or the limits are passed.
pub fn resolve(
    pickle: &Pickle,
    storage: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
) -> Result<Value, String> {
    let storages = HashMap::new();
    Resolver { nodes: &pickle.nodes, storage, storages, values: 0, bytes: 0 }.value(pickle.root, 0)
}

struct Resolver<'a> {
    nodes: &'a [Node],
    storage: &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    /// Those read so far: several tensors may share one.
    storages: HashMap<String, Rc<Vec<u8>>>,
    values: usize,
    /// Of tensors, storages and strings.
    bytes: u64,
}

impl Resolver<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("expected at most {MAX_VALUES} values, found more"));
        }
        if depth > MAX_DEPTH {
            return Err(format!("expected at most {MAX_DEPTH} levels of nesting, found more"));
        }
        Ok(match &self.nodes[id] {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Str(value) => {
                // A long string may be referred to many times.
                self.count_bytes(value.len()).ok_or_else(|| {
                    format!("expected at most {MAX_TENSOR_BYTES} bytes in all, found more")
                })?;
                Value::Str(value.clone())
            }
            Node::Bytes(_) => Value::Object { class: "builtins.bytes".to_owned(), state: None },
            Node::List(items) => Value::List(self.values(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.values(items, depth)?),
            Node::Dict(items) => Value::Dict { items: self.pairs(items, depth)?, attributes: None },
            Node::Global(name) => Value::Object { class: name.clone(), state: None },
            Node::Persistent(_) => {
                Value::Object { class: "a persistent id".to_owned(), state: None }
            }
            Node::Call { function, arguments, items, state } => {
                let class = match &self.nodes[*function] {
                    Node::Global(name) => name.as_str(),
                    _ => "(no name)",
                };
                match (class, &self.nodes[*arguments]) {
                    ("collections.OrderedDict", _) => Value::Dict {
                        items: self.pairs(items, depth)?,
                        attributes: self.attributes(*state, depth)?,
                    },
                    ("torch._utils._rebuild_tensor_v2", Node::Tuple(arguments)) => {
                        Value::Tensor(self.tensor(arguments)?)
                    }
                    ("torch._utils._rebuild_parameter", Node::Tuple(arguments))
                        if !arguments.is_empty() =>
                    {
                        self.value(arguments[0], depth + 1)?
                    }
                    (class, _) => Value::Object {
                        class: class.to_owned(),
                        state: match state {
                            Some(state) => Some(Box::new(self.value(*state, depth + 1)?)),
                            None => None,
                        },
                    },
                }
            }
        })
    }

    fn values(&mut self, ids: &[Id], depth: usize) -> Result<Vec<Value>, String> {
        ids.iter().map(|&id| self.value(id, depth + 1)).collect()
    }

    fn pairs(&mut self, ids: &[(Id, Id)], depth: usize) -> Result<Vec<(Value, Value)>, String> {
        ids.iter()
            .map(|&(key, value)| Ok((self.value(key, depth + 1)?, self.value(value, depth + 1)?)))
            .collect()
    }

    fn attributes(
        &mut self,
        state: Option<Id>,
        depth: usize,
    ) -> Result<Option<Vec<(String, Value)>>, String> {
        let Some(id) = state else { return Ok(None) };
        let Value::Dict { items, .. } = self.value(id, depth + 1)? else { return Ok(None) };
        let named =
            items.into_iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value)));
        Ok(Some(named.collect()))
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, ...)`.
    fn tensor(&mut self, arguments: &[Id]) -> Result<Tensor, String> {
        let [storage, offset, size, stride, ..] = arguments else {
            return Err("expected storage, offset, size and stride of a tensor".to_owned());
        };
        let (dtype, key) = self.storage_of(*storage)?;
        let offset = match self.nodes[*offset] {
            Node::Int(offset) => usize::try_from(offset).ok(),
            _ => None,
        }
        .ok_or("expected a tensor's offset as an integer from 0")?;
        let size =
            self.sizes(*size).ok_or("expected a tensor's size as a tuple of integers from 0")?;
        let stride = self
            .sizes(*stride)
            .ok_or("expected a tensor's stride as a tuple of integers from 0")?;
        if size.len() != stride.len() || size.len() > 8 {
            return Err(format!(
                "expected as many strides as sizes, 8 at most, found {} and {}",
                stride.len(),
                size.len()
            ));
        }
        let numel = size
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n))
            .filter(|numel| *numel as u64 <= MAX_TENSOR_BYTES)
            .ok_or_else(|| too_large(&size))?;
        self.count_bytes(numel * dtype.size()).ok_or_else(|| too_large(&size))?;
        let bytes = match self.storages.get(&key) {
            Some(bytes) => Rc::clone(bytes),
            None => {
                let bytes = Rc::new((self.storage)(&key)?);
                self.count_bytes(bytes.len()).ok_or_else(|| too_large(&size))?;
                self.storages.insert(key, Rc::clone(&bytes));
                bytes
            }
        };
        // The last element's index; nothing may lie beyond the storage.
        let last = size.iter().zip(&stride).try_fold(offset, |sum, (&n, &step)| {
            n.saturating_sub(1).checked_mul(step)?.checked_add(sum)
        });
        let elements = bytes.len() / dtype.size();
        if numel > 0 && last.is_none_or(|last| last >= elements) {
            return Err(format!(
                "expected a tensor within its storage of {elements} elements, found offset {offset}, size {size:?}, stride {stride:?}"
            ));
        }
        let data = gather(&bytes, dtype.size(), offset, &size, &stride, numel);
        let shape: Vec<i64> = size.iter().map(|&n| n as i64).collect();
        Tensor::f_from_data_size(&data, &shape, dtype.0)
            .map_err(|error| Error::from(error).to_string())
    }

    /// Counts towards the limit; `None` past it.
    fn count_bytes(&mut self, bytes: usize) -> Option<()> {
        self.bytes = self.bytes.checked_add(bytes as u64)?;
        (self.bytes <= MAX_TENSOR_BYTES).then_some(())
    }

    /// Element type and key of `('storage', torch.FloatStorage, '0', 'cpu', numel)`.
    fn storage_of(&self, id: Id) -> Result<(DType, String), String> {
        let parts = match &self.nodes[id] {
            Node::Persistent(id) => match &self.nodes[*id] {
                Node::Tuple(parts) => parts.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        let none = || "expected a reference to a storage".to_owned();
        let &[tag, class, key, ..] = parts else { return Err(none()) };
        match (&self.nodes[tag], &self.nodes[class], &self.nodes[key]) {
            (Node::Str(tag), Node::Global(class), Node::Str(key)) if tag == "storage" => {
                let dtype = DType::from_storage(class).ok_or_else(|| {
                    format!("expected a tensor of floats or integers, found `{}`", shown(class))
                })?;
                Ok((dtype, key.clone()))
            }
            _ => Err(none()),
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let Node::Tuple(items) = &self.nodes[id] else { return None };
        items
            .iter()
            .map(|&item| match self.nodes[item] {
                Node::Int(size) => usize::try_from(size).ok(),
                _ => None,
            })
            .collect()
    }
}

fn too_large(size: &[usize]) -> String {
    format!(
        "expected tensors of at most {MAX_TENSOR_BYTES} bytes in all, found more with one of size {size:?}"
    )
}

/// The elements of a strided view, row-major. All indices are known to be within `bytes`.
fn gather(
    bytes: &[u8],
    element: usize,
    offset: usize,
    size: &[usize],
    stride: &[usize],
    numel: usize,
) -> Vec<u8> {
    let mut data = Vec::with_capacity(numel * element);
    let mut index = vec![0; size.len()];
    for _ in 0..numel {
        let position: usize =
            offset + index.iter().zip(stride).map(|(i, step)| i * step).sum::<usize>();
        data.extend_from_slice(&bytes[position * element..][..element]);
        for axis in (0..size.len()).rev() {
            index[axis] += 1;
            if index[axis] < size[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    data
}
