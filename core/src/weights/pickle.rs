//! Reads pickles, as far as PyTorch's files need them.
//!
//! A pickle is a program for a small stack machine. This reader runs the stack operations but no
//! calls: a global is kept as its name, and `REDUCE`, `NEWOBJ` and `BUILD` only record their
//! arguments. [`super::resolve`] interprets these records afterwards. So nothing in a file is
//! executed or imported. Nodes refer to each other by index, which needs no recursion and cannot
//! leak cycles.
//!
//! Source of the opcodes: CPython's `Lib/pickletools.py`.

use std::collections::HashMap;

use super::limits::{Limits, RAISE};

/// The longest name of a class or function.
const MAX_NAME_BYTES: usize = 256;

/// The index of a node in [`Pickle::nodes`].
pub type Id = usize;

/// A value that an opcode has put on the stack.
#[derive(Debug)]
pub enum Node {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Str(String),
    /// `bytes`, or an integer of more than 64 bits.
    Bytes(Vec<u8>),
    /// A list, or a set.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function, `module.name`, which is never imported.
    Global(String),
    /// The object that a persistent id stands for: in PyTorch's files, a storage.
    Persistent(Id),
    /// A call or an object creation that was not run: `function(*arguments)`, then the items and
    /// the state that were set.
    Call {
        /// The function or class; a [`Node::Global`] in a valid file.
        function: Id,
        /// The arguments; a [`Node::Tuple`] in a valid file.
        arguments: Id,
        /// The items that `SETITEM` and `SETITEMS` set.
        items: Vec<(Id, Id)>,
        /// The state that `BUILD` set.
        state: Option<Id>,
    },
}

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The node that the pickle evaluates to.
    pub root: Id,
    /// The number of bytes of the pickle, including STOP.
    pub length: usize,
}

/// Parses the pickle at the start of `bytes`, and ignores what follows it.
///
/// # Errors
/// If the bytes are no valid pickle; the message states what was expected, what was found and the
/// offset.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Pickle, String> {
    let mut machine = Machine {
        bytes,
        limit: limits.pickle_bytes(),
        max_nodes: limits.values(),
        offset: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine
        .run()
        .map_err(|message| format!("{message} at byte {} of the pickle", machine.offset))?;
    Ok(Pickle { nodes: machine.nodes, root, length: machine.offset })
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// The largest number of bytes of the pickle.
    limit: usize,
    max_nodes: usize,
    offset: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The height of the stack at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let opcode = self.byte()?;
            if self.nodes.len() > self.max_nodes {
                let limit = self.max_nodes;
                return Err(format!("expected at most {limit} values, found more; {RAISE}"));
            }
            match opcode {
                b'.' => return self.pop(),
                0x80 => match self.byte()? {
                    1..=5 => {}
                    found => return Err(format!("expected pickle protocol 1 to 5, found {found}")),
                },
                0x95 => {
                    self.take(8)?; // FRAME: its length is not needed
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'I' => {
                    let node = match self.line()?.as_str() {
                        "00" => Node::Bool(false),
                        "01" => Node::Bool(true),
                        digits => integer(digits)?,
                    };
                    self.push(node);
                }
                b'L' => {
                    let line = self.line()?;
                    self.push(integer(line.strip_suffix('L').unwrap_or(&line))?);
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()));
                }
                b'K' => {
                    let value = self.byte()?;
                    self.push(Node::Int(value.into()));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()));
                }
                0x8a => {
                    let length = self.byte()?;
                    self.long(length.into())?;
                }
                0x8b => {
                    let length = self.length4()?;
                    self.long(length)?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.push(Node::Float(value));
                }
                b'X' | b'T' => {
                    let length = self.length4()?;
                    self.string(length)?;
                }
                // `U` and `T` are the byte strings of Python 2.
                0x8c | b'U' => {
                    let length = self.byte()?;
                    self.string(length.into())?;
                }
                0x8d => {
                    let length = self.length8()?;
                    self.string(length)?;
                }
                b'C' => {
                    let length = self.byte()?;
                    self.raw(length.into())?;
                }
                b'B' => {
                    let length = self.length4()?;
                    self.raw(length)?;
                }
                0x8e | 0x96 => {
                    let length = self.length8()?;
                    self.raw(length)?;
                }
                b']' | 0x8f => self.push(Node::List(Vec::new())), // a set is read as a list
                b'}' => self.push(Node::Dict(Vec::new())),
                b')' => self.push(Node::Tuple(Vec::new())),
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_mark()?;
                    self.extend(items)?;
                }
                b'l' | 0x91 => {
                    let items = self.pop_mark()?;
                    self.push(Node::List(items));
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Tuple(items));
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let start = self.height_above_mark(count)?;
                    let items = self.stack.split_off(start);
                    self.push(Node::Tuple(items));
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Node::Dict(Vec::new()));
                    self.set_items(items)?;
                }
                b's' => {
                    let start = self.height_above_mark(2)?;
                    let items = self.stack.split_off(start);
                    self.set_items(items)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Node::Global(format!("{module}.{name}")));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.nodes[module], &self.nodes[name]) {
                        (Node::Str(module), Node::Str(name))
                            if module.len() + name.len() <= MAX_NAME_BYTES =>
                        {
                            let global = format!("{module}.{name}");
                            self.push(Node::Global(global));
                        }
                        _ => return Err("expected two short strings for a global".to_owned()),
                    }
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.push(Node::Call { function, arguments, items: Vec::new(), state: None });
                }
                0x92 => {
                    self.pop()?; // NEWOBJ_EX: its keyword arguments are not needed
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.push(Node::Call { function, arguments, items: Vec::new(), state: None });
                }
                b'b' => {
                    let new_state = self.pop()?;
                    let top = self.top()?;
                    if let Node::Call { state, .. } = &mut self.nodes[top] {
                        *state = Some(new_state);
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Node::Persistent(id));
                }
                b'h' => {
                    let key = self.byte()?;
                    self.get(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.get(key)?;
                }
                b'q' => {
                    let key = self.byte()?;
                    self.put(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.put(key)?;
                }
                0x94 => {
                    let key = u32::try_from(self.memo.len()).map_err(|error| error.to_string())?;
                    self.put(key)?;
                }
                other => {
                    return Err(format!(
                        "expected a pickle, found the unknown opcode 0x{other:02x}"
                    ));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let limit = self.limit;
        if self.bytes.len() > limit && length > limit - self.offset {
            return Err(format!("expected a pickle of at most {limit} bytes, found more; {RAISE}"));
        }
        let bytes = self.bytes[self.offset..]
            .get(..length)
            .ok_or_else(|| "expected more of the pickle, found its end".to_owned())?;
        self.offset += length;
        Ok(bytes)
    }

    fn length4(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|error| error.to_string())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.offset..];
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| "expected a line, found the end".to_owned())?;
        if end > MAX_NAME_BYTES {
            return Err(format!("expected a name of at most {MAX_NAME_BYTES} bytes, found {end}"));
        }
        let line = self.take(end + 1)?;
        text(&line[..end])
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn string(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        // Python's strings can hold unpaired surrogates, which are not valid UTF-8.
        self.push(text(bytes).map_or_else(|_| Node::Bytes(bytes.to_vec()), Node::Str));
        Ok(())
    }

    fn raw(&mut self, length: usize) -> Result<(), String> {
        let value = self.take(length)?.to_vec();
        self.push(Node::Bytes(value));
        Ok(())
    }

    /// Pushes a little-endian two's complement integer. One that does not fit in 64 bits is kept as
    /// bytes.
    fn long(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        if length > 8 {
            // torch.initial_seed() may return such numbers. LeNet-5's tensors do not need them.
            self.push(Node::Bytes(bytes.to_vec()));
            return Ok(());
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut padded = [if negative { 0xff } else { 0 }; 8];
        padded[..length].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(padded)));
        Ok(())
    }

    /// The height of the stack minus `count`. Values below the last mark cannot be reached.
    fn height_above_mark(&self, count: usize) -> Result<usize, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack
            .len()
            .checked_sub(count)
            .filter(|&height| height >= floor)
            .ok_or_else(|| "expected a value on the stack, found none".to_owned())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let height = self.height_above_mark(1)?;
        Ok(self.stack.split_off(height)[0])
    }

    fn top(&self) -> Result<Id, String> {
        Ok(self.stack[self.height_above_mark(1)?])
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(|| "expected a mark, found none".to_owned())?;
        Ok(self.stack.split_off(mark))
    }

    fn extend(&mut self, new: Vec<Id>) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(items) => items.extend(new),
            // A subclass of list, whose items are not needed.
            Node::Call { .. } => {}
            _ => return Err("expected a list to append to".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, new: Vec<Id>) -> Result<(), String> {
        if !new.len().is_multiple_of(2) {
            return Err("expected pairs of key and value".to_owned());
        }
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(items) | Node::Call { items, .. } => {
                items.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err("expected a dict to set items of".to_owned()),
        }
    }

    fn get(&mut self, key: u32) -> Result<(), String> {
        let id = *self
            .memo
            .get(&key)
            .ok_or_else(|| format!("expected entry {key} in the memo, found none"))?;
        self.stack.push(id);
        Ok(())
    }

    fn put(&mut self, key: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }
}

/// A decimal integer. One that does not fit in 64 bits is kept as bytes.
fn integer(digits: &str) -> Result<Node, String> {
    let value: i128 =
        digits.parse().map_err(|_| "expected an integer in decimal digits".to_owned())?;
    Ok(match i64::try_from(value) {
        Ok(value) => Node::Int(value),
        Err(_) => Node::Bytes(value.to_le_bytes().to_vec()),
    })
}

fn text(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "expected UTF-8 text".to_owned())
}
