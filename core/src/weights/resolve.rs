//! Turns a parsed pickle into values. The functions that build PyTorch's values are recognised by
//! their names and carried out here; no other call is run.
//!
//! Source of the names: `torch/_utils.py`, `torch/_tensor.py` and
//! `torch/csrc/jit/serialization/pickler.cpp` of PyTorch 2.11.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::limits::{Limits, RAISE};
use super::pickle::{Id, Node, Pickle};
use super::value::{Value, shown};
use crate::{Array, DType};

/// The largest depth of nested values.
const MAX_DEPTH: usize = 100;
/// The largest number of tensors.
const MAX_TENSORS: usize = 10_000;
/// The longest key of a storage, in bytes. PyTorch's keys are numbers.
const MAX_KEY_BYTES: usize = 256;
/// The largest number of dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;
/// The largest number of devices (`cpu`, `cuda:0`) that are noted.
const MAX_LOCATIONS: usize = 16;

/// Storage classes of tensors that cannot be read: the class, the bytes of an element, and a
/// description.
const FOREIGN_STORAGES: [(&str, usize, &str); 8] = [
    ("torch.ComplexFloatStorage", 8, "a complex tensor"),
    ("torch.ComplexDoubleStorage", 16, "a complex tensor"),
    ("torch.QInt8Storage", 1, "a quantised tensor"),
    ("torch.QUInt8Storage", 1, "a quantised tensor"),
    ("torch.QInt32Storage", 4, "a quantised tensor"),
    ("torch.QUInt4x2Storage", 1, "a quantised tensor"),
    ("torch.QUInt2x4Storage", 1, "a quantised tensor"),
    ("torch.storage.UntypedStorage", 1, "a tensor without a type"),
];

/// Functions that create tensors of kinds that cannot be read, each with a description.
const FOREIGN_FUNCTIONS: [(&str, &str); 9] = [
    ("torch._utils._rebuild_qtensor", "a quantised tensor"),
    ("torch._utils._rebuild_sparse_tensor", "a sparse tensor"),
    ("torch._utils._rebuild_sparse_csr_tensor", "a sparse tensor"),
    (
        "torch._utils._rebuild_meta_tensor_no_storage",
        "a tensor of the meta device, without numbers",
    ),
    ("torch._utils._rebuild_nested_tensor", "a nested tensor"),
    ("torch._utils._rebuild_wrapper_subclass", "a tensor of a subclass without a storage"),
    ("torch._utils._rebuild_device_tensor_from_numpy", "a tensor of a device without storages"),
    ("torch.nested._internal.nested_tensor.NestedTensor", "a nested tensor"),
    ("torch._sparse_coo_tensor_unsafe", "a sparse tensor"),
];

/// Functions that return their first argument without a change that matters here.
const IDENTITY_FUNCTIONS: [&str; 14] = [
    "__builtin__.set",
    "builtins.set",
    "torch._dynamo.eval_frame.OptimizedModule",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch.nn.parameter.Parameter",
    "torch.autograd.variable.Variable",
    "torch.Size",
    "torch.jit._pickle.restore_type_tag",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
];

/// Returns the bytes of an element of a storage of this class, such as `torch.FloatStorage`.
pub fn storage_element_size(class: &str) -> Option<usize> {
    DType::from_storage(class).map(DType::size).or_else(|| {
        FOREIGN_STORAGES.iter().find(|(name, ..)| *name == class).map(|&(_, size, _)| size)
    })
}

/// A reference to a storage, which a persistent id holds:
/// `('storage', torch.FloatStorage, '0', 'cpu', numel, view)`.
#[derive(Debug)]
pub struct StorageRef<'a> {
    /// The name of its class, such as `torch.FloatStorage`, which is never imported.
    pub class: &'a str,
    /// The storage's key in the file.
    pub key: &'a str,
    /// The device on which it was: `cpu`, `cuda:0`.
    location: &'a str,
    /// The index of the first element of the view. Only the oldest files have views.
    offset: usize,
}

/// Returns the storage that a node refers to.
pub fn storage<'a>(nodes: &'a [Node], node: &Node) -> Option<StorageRef<'a>> {
    let Node::Persistent(id) = node else { return None };
    let Node::Tuple(parts) = &nodes[*id] else { return None };
    let [tag, class, key, location, _, view @ ..] = parts.as_slice() else { return None };
    match (&nodes[*tag], &nodes[*class], &nodes[*key], &nodes[*location]) {
        (Node::Str(tag), Node::Global(class), Node::Str(key), Node::Str(location))
            if tag == "storage" && key.len() <= MAX_KEY_BYTES =>
        {
            // The view is None or (key of the view, offset, size).
            let offset = match view.first().map(|&view| &nodes[view]) {
                Some(Node::Tuple(view)) => match view.get(1).map(|&offset| &nodes[offset]) {
                    Some(Node::Int(offset)) => usize::try_from(*offset).ok()?,
                    _ => return None,
                },
                _ => 0,
            };
            Some(StorageRef { class, key, location, offset })
        }
        _ => None,
    }
}

/// Provides the bytes of storages.
pub struct Source<'a> {
    /// Whether the elements of the storages are big-endian.
    pub big_endian: bool,
    /// Returns the bytes of the storage with this key.
    pub storage: &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
}

/// The result of [`resolve`].
#[derive(Debug)]
pub struct Resolved {
    /// The value.
    pub value: Value,
    /// The devices on which its storages were: `cpu`, `cuda:0`.
    pub locations: BTreeSet<String>,
}

/// Turns a parsed pickle into values.
///
/// # Errors
/// If a tensor's description is invalid, or a limit is exceeded.
pub fn resolve(pickle: &Pickle, limits: &Limits, source: &mut Source) -> Result<Resolved, String> {
    let mut resolver = Resolver {
        nodes: &pickle.nodes,
        limits,
        source,
        storages: HashMap::new(),
        locations: BTreeSet::new(),
        values: 0,
        tensors: 0,
        bytes: 0,
    };
    let value = resolver.value(pickle.root, 0)?;
    Ok(Resolved { value, locations: resolver.locations })
}

struct Resolver<'a, 'b> {
    nodes: &'a [Node],
    limits: &'a Limits,
    source: &'a mut Source<'b>,
    /// The storages that have been read, by key. Several tensors may share one.
    storages: HashMap<&'a str, Rc<Vec<u8>>>,
    locations: BTreeSet<String>,
    values: usize,
    tensors: usize,
    /// The bytes of all tensors, storages and strings so far.
    bytes: u64,
}

impl<'a> Resolver<'a, '_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<Value, String> {
        self.count_values(1)?;
        if depth > MAX_DEPTH {
            return Err(format!("expected at most {MAX_DEPTH} levels of nesting, found more"));
        }
        Ok(match &self.nodes[id] {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Str(value) => {
                // The file may refer to one long string many times, and each reference makes a
                // copy.
                self.count_bytes(value.len()).ok_or_else(|| {
                    let limit = self.limits.tensor_bytes();
                    format!("expected at most {limit} bytes in all, found more; {RAISE}")
                })?;
                Value::Str(value.clone())
            }
            Node::Bytes(_) => Value::Bytes,
            Node::List(items) => Value::List(self.values(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.values(items, depth)?),
            Node::Dict(items) => Value::Dict { items: self.pairs(items, depth)?, attributes: None },
            Node::Global(name) => Value::Global(name.clone()),
            // A storage without a tensor, or an object that PyTorch does not write.
            Node::Persistent(id) => self.value(*id, depth + 1)?,
            Node::Call { function, arguments, items, state } => {
                self.call(*function, *arguments, items, *state, depth)?
            }
        })
    }

    /// The result of a call that builds one of PyTorch's values; a record of any other call.
    fn call(
        &mut self,
        function: Id,
        arguments: Id,
        items: &[(Id, Id)],
        state: Option<Id>,
        depth: usize,
    ) -> Result<Value, String> {
        let class = self.class(function);
        let arguments = match &self.nodes[arguments] {
            Node::Tuple(arguments) => arguments.as_slice(),
            _ => &[],
        };
        if let Some((_, what)) = FOREIGN_FUNCTIONS.iter().find(|(name, _)| *name == class) {
            return Ok(Value::Foreign((*what).to_owned()));
        }
        match (class, arguments) {
            ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor", _) => {
                self.tensor(arguments, None, arguments.get(6))
            }
            ("torch._utils._rebuild_tensor_v3", _) => {
                match arguments.get(6).map(|&dtype| &self.nodes[dtype]) {
                    Some(Node::Global(name)) => {
                        self.tensor(arguments, Some(name), arguments.get(7))
                    }
                    _ => Err("expected a tensor's dtype".to_owned()),
                }
            }
            (class, &[first, ..]) if IDENTITY_FUNCTIONS.contains(&class) => {
                self.value(first, depth + 1)
            }
            // (function, type, arguments, state) of a tensor with attributes, or of a subclass of
            // tensors.
            (
                "torch._tensor._rebuild_from_type_v2" | "torch.tensor._rebuild_from_type",
                &[function, _, arguments, ..],
            ) if depth < MAX_DEPTH => self.call(function, arguments, &[], None, depth + 1),
            ("collections.OrderedDict", _) => {
                let mut pairs = self.pairs(items, depth)?;
                if let &[first, ..] = arguments {
                    // Python 2 passes the items as an argument, a list of lists.
                    pairs.extend(self.listed_pairs(first, depth)?);
                }
                Ok(Value::Dict { items: pairs, attributes: self.attributes(state, depth)? })
            }
            // A subclass of dict.
            _ if !items.is_empty() => Ok(Value::Dict {
                items: self.pairs(items, depth)?,
                attributes: self.attributes(state, depth)?,
            }),
            (class, _) => Ok(Value::Object {
                class: class.to_owned(),
                state: match state {
                    Some(state) => Some(Box::new(self.value(state, depth + 1)?)),
                    None => None,
                },
            }),
        }
    }

    /// The name of a class or function. The old format puts a module's class and its source code
    /// into a persistent id: `('module', class, file, source)`.
    fn class(&self, id: Id) -> &'a str {
        match &self.nodes[id] {
            Node::Global(name) => name,
            Node::Persistent(id) => match &self.nodes[*id] {
                Node::Tuple(parts) => match parts.get(1).map(|&class| &self.nodes[class]) {
                    Some(Node::Global(name)) => name,
                    _ => "(no name)",
                },
                _ => "(no name)",
            },
            _ => "(no name)",
        }
    }

    /// Counts values towards the limit. A value counts each time that it is referred to, because a
    /// file can refer to one value many times.
    fn count_values(&mut self, count: usize) -> Result<(), String> {
        self.values += count;
        let limit = self.limits.values();
        if self.values > limit {
            return Err(format!("expected at most {limit} values, found more; {RAISE}"));
        }
        Ok(())
    }

    fn values(&mut self, ids: &[Id], depth: usize) -> Result<Vec<Value>, String> {
        ids.iter().map(|&id| self.value(id, depth + 1)).collect()
    }

    fn pairs(&mut self, ids: &[(Id, Id)], depth: usize) -> Result<Vec<(Value, Value)>, String> {
        ids.iter()
            .map(|&(key, value)| Ok((self.value(key, depth + 1)?, self.value(value, depth + 1)?)))
            .collect()
    }

    fn listed_pairs(&mut self, list: Id, depth: usize) -> Result<Vec<(Value, Value)>, String> {
        let Node::List(items) = &self.nodes[list] else { return Ok(Vec::new()) };
        self.count_values(items.len())?;
        let pair = |&item: &Id| match &self.nodes[item] {
            Node::List(pair) | Node::Tuple(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        let pairs: Vec<(Id, Id)> = items.iter().filter_map(pair).map(|[k, v]| (k, v)).collect();
        self.pairs(&pairs, depth + 1)
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

    /// Builds a tensor from the arguments of
    /// `_rebuild_tensor_v2(storage, offset, size, stride, ...)`. A `dtype` replaces the storage's.
    /// `metadata` is a dict of bits, of which `neg` says that the tensor is the negative of the
    /// stored numbers.
    fn tensor(
        &mut self,
        arguments: &[Id],
        dtype: Option<&str>,
        metadata: Option<&Id>,
    ) -> Result<Value, String> {
        let [storage_id, offset, size, stride, ..] = arguments else {
            return Err("expected storage, offset, size and stride of a tensor".to_owned());
        };
        let storage = storage(self.nodes, &self.nodes[*storage_id])
            .ok_or("expected a reference to a storage")?;
        let offset = match self.nodes[*offset] {
            Node::Int(offset) => usize::try_from(offset).ok(),
            _ => None,
        }
        .and_then(|offset| offset.checked_add(storage.offset))
        .ok_or("expected a tensor's offset as an integer from 0")?;
        let size =
            self.sizes(*size).ok_or("expected a tensor's size as a tuple of integers from 0")?;
        let stride = self
            .sizes(*stride)
            .ok_or("expected a tensor's stride as a tuple of integers from 0")?;
        if size.len() != stride.len() || size.len() > MAX_DIMENSIONS {
            return Err(format!(
                "expected as many strides as sizes, {MAX_DIMENSIONS} at most, found {} and {}",
                stride.len(),
                size.len()
            ));
        }
        self.tensors += 1;
        if self.tensors > MAX_TENSORS {
            return Err(format!("expected at most {MAX_TENSORS} tensors, found more"));
        }
        let dtype = match dtype {
            Some(name) => DType::from_torch(name).ok_or(name),
            None => DType::from_storage(storage.class).ok_or(storage.class),
        };
        let dtype = match dtype {
            Ok(dtype) => dtype,
            Err(name) => {
                let known = FOREIGN_STORAGES.iter().find(|(class, ..)| *class == name);
                return Ok(Value::Foreign(known.map_or_else(
                    || format!("a tensor of {}", shown(name)),
                    |(.., what)| (*what).to_owned(),
                )));
            }
        };
        let limit = self.limits.tensor_bytes();
        let too_large = || {
            format!(
                "expected tensors of at most {limit} bytes in all, found more with one of size {size:?}; {RAISE}"
            )
        };
        let numel = size
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n))
            .filter(|numel| *numel as u64 <= limit)
            .ok_or_else(too_large)?;
        self.count_bytes(numel * dtype.size()).ok_or_else(too_large)?;
        let bytes = match self.storages.get(storage.key) {
            Some(bytes) => Rc::clone(bytes),
            None => {
                let bytes = (self.source.storage)(storage.key)?;
                self.count_bytes(bytes.len()).ok_or_else(too_large)?;
                let bytes = Rc::new(bytes);
                self.storages.insert(storage.key, Rc::clone(&bytes));
                bytes
            }
        };
        // The index of the last element, which must lie within the storage.
        let last = size.iter().zip(&stride).try_fold(offset, |sum, (&n, &step)| {
            n.saturating_sub(1).checked_mul(step)?.checked_add(sum)
        });
        let elements = bytes.len() / dtype.size();
        if numel > 0 && last.is_none_or(|last| last >= elements) {
            return Err(format!(
                "expected a tensor within its storage of {elements} elements, found offset {offset}, size {size:?}, stride {stride:?}"
            ));
        }
        if self.locations.len() < MAX_LOCATIONS {
            self.locations.insert(shown(storage.location));
        }
        let mut data = gather(&bytes, dtype.size(), offset, &size, &stride, numel);
        if self.source.big_endian {
            data.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
        }
        if metadata.is_some_and(|metadata| self.is_negative(*metadata)) {
            if !dtype.is_float() {
                return Ok(Value::Foreign(format!("a negative view of {}", dtype.name())));
            }
            // The sign is the highest bit of the last byte.
            data.chunks_exact_mut(dtype.size()).for_each(|x| x[x.len() - 1] ^= 0x80);
        }
        Array::new(dtype, size, data).map(Value::Tensor).map_err(|error| error.to_string())
    }

    /// Whether a tensor's metadata say that it is the negative of the stored numbers.
    fn is_negative(&self, metadata: Id) -> bool {
        let Node::Dict(items) = &self.nodes[metadata] else { return false };
        items.iter().any(|&(key, value)| {
            matches!(&self.nodes[key], Node::Str(key) if key == "neg")
                && matches!(self.nodes[value], Node::Bool(true))
        })
    }

    /// Counts bytes towards the limit; `None` if it is exceeded.
    fn count_bytes(&mut self, bytes: usize) -> Option<()> {
        self.bytes = self.bytes.checked_add(bytes as u64)?;
        (self.bytes <= self.limits.tensor_bytes()).then_some(())
    }

    /// The elements of a tuple of sizes, or of a `torch.Size` of such a tuple.
    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = match &self.nodes[id] {
            Node::Tuple(items) => items,
            Node::Call { function, arguments, .. } if self.class(*function) == "torch.Size" => {
                let Node::Tuple(arguments) = &self.nodes[*arguments] else { return None };
                let Node::Tuple(items) = &self.nodes[*arguments.first()?] else { return None };
                items
            }
            _ => return None,
        };
        // One size more than is allowed is read, so that the message states that there are too
        // many.
        items
            .iter()
            .take(MAX_DIMENSIONS + 1)
            .map(|&item| match self.nodes[item] {
                Node::Int(size) => usize::try_from(size).ok(),
                _ => None,
            })
            .collect()
    }
}

/// Copies the elements of a strided view in row-major order. All indices must be within `bytes`.
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
