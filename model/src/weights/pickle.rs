//! The part of Python's pickle that PyTorch checkpoints use, read without executing anything.
//!
//! In: a pickle (protocol 2 to 5). Out: its value, in an arena. A pickle is a program for a stack machine that
//! may name any Python function; here the only names that mean something are the containers and the tensor
//! constructors of `torch/_utils.py`, and every other name is an error. Nothing recurses and nothing is larger
//! than the pickle, so untrusted input can neither overflow the stack nor exhaust memory.
//!
//! Opcodes: `Lib/pickletools.py` of `CPython` 3.13.

use std::collections::BTreeMap;

/// Index of a value in its arena.
pub(super) type Id = usize;

/// A Python value, as far as checkpoints have them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `None`, and every float, which checkpoints hold in places that do not matter.
    Ignored,
    Int(i64),
    Text(String),
    /// A tuple or list.
    Sequence(Vec<Id>),
    /// A dict, in insertion order.
    Dict(Vec<(Id, Id)>),
    Function(Function),
    /// The class of a storage such as `FloatStorage`.
    StorageType(String),
    Storage(Storage),
    Tensor(Tensor),
}

/// The functions that a checkpoint may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
}

/// A block of numbers outside the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// `FloatStorage`, `HalfStorage`, …
    pub class: String,
    /// Its name in the file.
    pub key: String,
    /// Elements.
    pub len: i64,
}

/// A view into a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: Storage,
    /// Elements before the first.
    pub offset: i64,
    pub shape: Vec<i64>,
    /// Elements from one index to the next, per dimension.
    pub stride: Vec<i64>,
}

/// A pickle read to its end.
#[derive(Debug)]
pub(super) struct Pickle {
    arena: Vec<Value>,
    root: Id,
    /// Bytes up to and with the STOP opcode.
    pub consumed: usize,
}

impl Pickle {
    /// The value that the pickle stands for.
    pub fn root(&self) -> &Value {
        self.get(self.root)
    }

    /// The value with this id, which came from a value of this pickle.
    pub fn get(&self, id: Id) -> &Value {
        self.arena.get(id).unwrap_or(&Value::Ignored)
    }
}

/// More arguments than any allowed function takes.
const MAX_ARGUMENTS: usize = 16;
/// More dimensions than any parameter has.
const MAX_DIMENSIONS: usize = 8;
/// Bytes of a storage's class and key together; `PyTorch` writes about 20.
const MAX_NAMES: usize = 256;

/// Why a pickle is refused.
pub(super) type Refusal = String;

/// Reads the pickle at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, Refusal> {
    let mut machine = Machine {
        bytes,
        at: 0,
        arena: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { arena: machine.arena, root, consumed: machine.at })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: Vec<Value>,
    stack: Vec<Id>,
    /// Stack heights at each MARK.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
}

impl Machine<'_> {
    /// Executes one opcode; false after STOP.
    fn step(&mut self) -> Result<bool, Refusal> {
        match self.byte()? {
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b'0' | b'b' => drop(self.pop()?), // POP; BUILD, whose attributes such as `_metadata` do not matter
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            0x80 => drop(self.byte()?),  // PROTO
            0x95 => drop(self.take(8)?), // FRAME
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.global(&module, &name)?;
            }
            op @ (b'q' | b'r' | 0x94 | b'h' | b'j') => self.memory(op)?,
            op @ (b't' | b')' | 0x85..=0x87 | b']' | b'l' | b'a' | b'e') => self.sequence(op)?,
            op @ (b'}' | b'd' | b's' | b'u') => self.dict(op)?,
            op => self.scalar(op)?,
        }
        Ok(true)
    }

    fn scalar(&mut self, op: u8) -> Result<(), Refusal> {
        let value = match op {
            b'N' => Value::Ignored,
            b'G' => {
                self.take(8)?;
                Value::Ignored
            }
            0x88 => Value::Int(1),
            0x89 => Value::Int(0),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(self.unsigned(2)? as i64),
            b'J' => Value::Int(i64::from(self.unsigned(4)? as u32 as i32)),
            0x8a => {
                let width = usize::from(self.byte()?);
                Value::Int(self.long(width)?)
            }
            b'X' | b'T' => self.text(4)?,
            0x8c | b'U' => self.text(1)?,
            0x8d => self.text(8)?,
            other => {
                return Err(format!(
                    "uses the pickle operation {other:#04x}, which no PyTorch checkpoint needs"
                ));
            }
        };
        self.push(value);
        Ok(())
    }

    /// PUT and GET in their sizes.
    fn memory(&mut self, op: u8) -> Result<(), Refusal> {
        let slot = match op {
            0x94 => self.memo.len() as u64,
            b'q' | b'h' => self.unsigned(1)?,
            _ => self.unsigned(4)?,
        };
        if matches!(op, b'h' | b'j') {
            let id = *self.memo.get(&slot).ok_or("refers to a value that it did not define")?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(slot, top);
        }
        Ok(())
    }

    fn sequence(&mut self, op: u8) -> Result<(), Refusal> {
        if matches!(op, b'a' | b'e') {
            let items = if op == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
            return match self.top_value()? {
                Value::Sequence(list) => {
                    list.extend(items);
                    Ok(())
                }
                _ => Err("appends to a value that is no list".to_owned()),
            };
        }
        let items = match op {
            b')' | b']' => Vec::new(),
            b't' | b'l' => self.pop_mark()?,
            short => self.pop_n(usize::from(short - 0x84))?,
        };
        self.push(Value::Sequence(items));
        Ok(())
    }

    fn dict(&mut self, op: u8) -> Result<(), Refusal> {
        let items = match op {
            b'}' => Vec::new(),
            b's' => self.pop_n(2)?,
            _ => self.pop_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("has a dict key without value".to_owned());
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        if matches!(op, b'}' | b'd') {
            let dict = Value::Dict(pairs.collect());
            self.push(dict);
            return Ok(());
        }
        match self.top_value()? {
            Value::Dict(dict) => {
                dict.extend(pairs);
                Ok(())
            }
            _ => Err("sets an item of a value that is no dict".to_owned()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        let value = match (module, name) {
            ("collections", "OrderedDict") => Value::Function(Function::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Value::Function(Function::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Value::Function(Function::RebuildParameter),
            ("torch" | "torch.storage", class) if class.ends_with("Storage") => {
                Value::StorageType(class.to_owned())
            }
            _ => {
                return Err(format!(
                    "asks Python for `{module}.{name}`, which is no tensor; it was not executed. Only plain state dicts of tensors are read; convert this file with safetensors in Python"
                ));
            }
        };
        self.push(value);
        Ok(())
    }

    /// `("storage", class, key, location, elements)`, as `torch/serialization.py` writes it.
    fn persistent_id(&mut self) -> Result<(), Refusal> {
        let parts = self.pop_arguments()?;
        let mut parts = parts.iter().map(|id| self.arena.get(*id));
        let storage = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (
                Some(Some(_)),
                Some(Some(Value::StorageType(class))),
                Some(Some(Value::Text(key))),
                Some(_),
                Some(Some(Value::Int(len))),
            ) if class.len() + key.len() <= MAX_NAMES => {
                Storage { class: class.clone(), key: key.clone(), len: *len }
            }
            _ => return Err("holds a persistent id that is no storage".to_owned()),
        };
        self.push(Value::Storage(storage));
        Ok(())
    }

    /// Calls one of the allowed functions.
    fn reduce(&mut self) -> Result<(), Refusal> {
        let arguments = self.pop_arguments()?;
        let function = self.pop()?;
        let value = match self.arena.get(function) {
            Some(Value::Function(Function::OrderedDict)) => Value::Dict(Vec::new()),
            Some(Value::Function(Function::RebuildTensor)) => Value::Tensor(self.rebuild_tensor(&arguments)?),
            Some(Value::Function(Function::RebuildParameter)) => {
                match arguments.first().and_then(|id| self.arena.get(*id)) {
                    Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                    _ => return Err("rebuilds a parameter from something that is no tensor".to_owned()),
                }
            }
            _ => return Err("calls a value that is no function".to_owned()),
        };
        self.push(value);
        Ok(())
    }

    /// `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks)`.
    fn rebuild_tensor(&self, arguments: &[Id]) -> Result<Tensor, Refusal> {
        let mut arguments = arguments.iter().map(|id| self.arena.get(*id));
        match (arguments.next(), arguments.next(), arguments.next(), arguments.next()) {
            (
                Some(Some(Value::Storage(storage))),
                Some(Some(Value::Int(offset))),
                Some(Some(Value::Sequence(shape))),
                Some(Some(Value::Sequence(stride))),
            ) => Ok(Tensor {
                storage: storage.clone(),
                offset: *offset,
                shape: self.ints(shape)?,
                stride: self.ints(stride)?,
            }),
            _ => Err("rebuilds a tensor from arguments that PyTorch does not write".to_owned()),
        }
    }

    fn ints(&self, ids: &[Id]) -> Result<Vec<i64>, Refusal> {
        if ids.len() > MAX_DIMENSIONS {
            return Err(format!("has a tensor of {} dimensions", ids.len()));
        }
        ids.iter()
            .map(|id| match self.arena.get(*id) {
                Some(Value::Int(value)) => Ok(*value),
                _ => Err("has a tensor size that is no integer".to_owned()),
            })
            .collect()
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.arena.len());
        self.arena.push(value);
    }

    fn pop(&mut self) -> Result<Id, Refusal> {
        self.stack.pop().ok_or_else(|| "takes a value from an empty stack".to_owned())
    }

    fn pop_n(&mut self, n: usize) -> Result<Vec<Id>, Refusal> {
        let height = self.stack.len().checked_sub(n).ok_or("takes a value from an empty stack")?;
        Ok(self.stack.split_off(height))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Refusal> {
        let height = self
            .marks
            .pop()
            .filter(|height| *height <= self.stack.len())
            .ok_or("ends a group that it did not begin")?;
        Ok(self.stack.split_off(height))
    }

    /// The arguments of a call. Bounded, since a tuple may be used many times but is stored once.
    fn pop_arguments(&mut self) -> Result<Vec<Id>, Refusal> {
        let id = self.pop()?;
        match self.arena.get(id) {
            Some(Value::Sequence(items)) if items.len() <= MAX_ARGUMENTS => Ok(items.clone()),
            _ => Err("has a call without a short argument tuple".to_owned()),
        }
    }

    fn pop_text(&mut self) -> Result<String, Refusal> {
        let id = self.pop()?;
        match self.arena.get(id) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => Err("names a function by something that is no text".to_owned()),
        }
    }

    fn top(&self) -> Result<Id, Refusal> {
        self.stack.last().copied().ok_or_else(|| "takes a value from an empty stack".to_owned())
    }

    fn top_value(&mut self) -> Result<&mut Value, Refusal> {
        let id = self.top()?;
        self.arena.get_mut(id).ok_or_else(|| "takes a value from an empty stack".to_owned())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Refusal> {
        let end = self.at.checked_add(n).ok_or("ends in the middle")?;
        let taken = self.bytes.get(self.at..end).ok_or("ends in the middle")?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// A little-endian unsigned integer of `width` <= 8 bytes.
    fn unsigned(&mut self, width: usize) -> Result<u64, Refusal> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A little-endian two's-complement integer of `width` bytes.
    fn long(&mut self, width: usize) -> Result<i64, Refusal> {
        if width > 8 {
            return Err("holds an integer of over 64 bits".to_owned());
        }
        let unused = 64 - 8 * width as u32;
        let value = self.unsigned(width)?;
        Ok(value.checked_shl(unused).map_or(0, |shifted| shifted as i64 >> unused))
    }

    /// UTF-8 text whose length stands in `width` bytes before it.
    fn text(&mut self, width: usize) -> Result<Value, Refusal> {
        let length = usize::try_from(self.unsigned(width)?).map_err(|_| "ends in the middle")?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "holds text that is not UTF-8")?;
        Ok(Value::Text(text.to_owned()))
    }

    fn line(&mut self) -> Result<String, Refusal> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("ends in the middle")?;
        let line =
            std::str::from_utf8(self.take(length)?).map_err(|_| "holds text that is not UTF-8")?.to_owned();
        self.take(1)?;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_anything_but_a_tensor_is_refused_by_name() {
        let refusal = read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.").unwrap_err();
        insta::assert_snapshot!(refusal, @"asks Python for `os.system`, which is no tensor; it was not executed. Only plain state dicts of tensors are read; convert this file with safetensors in Python");
    }

    #[test]
    fn a_shared_list_seen_through_the_memo_is_the_same_list() {
        // l = []; (l, l) with an item appended after the first use
        let pickle = read(b"\x80\x02]q\x00K\x07ah\x00\x86.").unwrap();
        let Value::Sequence(items) = pickle.root() else { panic!("no tuple") };
        assert_eq!(items.first(), items.last());
        let Value::Sequence(list) = pickle.get(items[0]) else { panic!("no list") };
        assert_eq!(pickle.get(list[0]), &Value::Int(7));
    }

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        for (bytes, value) in [
            (&b"K\xff."[..], 255),
            (b"M\xff\xff.", 65535),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\x00.", 255),
        ] {
            assert_eq!(read(bytes).unwrap().root(), &Value::Int(value), "{bytes:?}");
        }
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let mut bytes = b"\x80\x02)".to_vec();
        bytes.resize(1_000_000, 0x85);
        bytes.push(b'.');
        assert!(matches!(read(&bytes).unwrap().root(), Value::Sequence(_)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes);
        }
    }
}
