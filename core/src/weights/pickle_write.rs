//! Writes pickles as `torch.save` does.

use super::value::Value;
use crate::Result;

/// Encodes a value as a pickle (protocol 2) that `torch.load(weights_only=True)` reads. The bytes
/// of each tensor are appended to `storages`; their index there is their key in the archive.
pub fn write<'a>(value: &'a Value, storages: &mut Vec<&'a [u8]>) -> Result<Vec<u8>> {
    let mut out = vec![0x80, 2];
    write_value(value, &mut out, storages)?;
    out.push(b'.');
    Ok(out)
}

fn write_value<'a>(
    value: &'a Value,
    out: &mut Vec<u8>,
    storages: &mut Vec<&'a [u8]>,
) -> Result<()> {
    match value {
        Value::None => out.push(b'N'),
        Value::Bool(true) => out.push(0x88),
        Value::Bool(false) => out.push(0x89),
        Value::Int(value) => write_int(*value, out),
        Value::Float(value) => {
            out.push(b'G');
            out.extend(value.to_be_bytes());
        }
        Value::Str(value) => write_str(value, out),
        Value::List(items) => {
            out.extend(b"](");
            for item in items {
                write_value(item, out, storages)?;
            }
            out.push(b'e');
        }
        Value::Tuple(items) => {
            out.push(b'(');
            for item in items {
                write_value(item, out, storages)?;
            }
            out.push(b't');
        }
        Value::Dict { items, attributes } => {
            out.extend(b"ccollections\nOrderedDict\n)R(");
            for (key, value) in items {
                write_value(key, out, storages)?;
                write_value(value, out, storages)?;
            }
            out.push(b'u');
            if let Some(attributes) = attributes {
                out.extend(b"}(");
                for (name, value) in attributes {
                    write_str(name, out);
                    write_value(value, out, storages)?;
                }
                out.extend(b"ub");
            }
        }
        Value::Tensor(tensor) => {
            let (dtype, shape) = (tensor.dtype(), tensor.shape());
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            write_str("storage", out);
            out.extend(format!("ctorch\n{}\n", dtype.storage()).bytes());
            write_str(&storages.len().to_string(), out);
            write_str("cpu", out);
            write_int(tensor.len() as i64, out);
            out.extend(b"tQ");
            write_int(0, out); // offset
            for sizes in [shape, &contiguous_strides(shape)] {
                out.push(b'(');
                sizes.iter().for_each(|&size| write_int(size as i64, out));
                out.push(b't');
            }
            // requires_grad, backward hooks
            out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            storages.push(tensor.bytes());
        }
        Value::Bytes | Value::Foreign(_) | Value::Global(_) | Value::Object { .. } => {
            return Err(crate::Error::Config(format!("cannot write {}", value.describe())));
        }
    }
    Ok(())
}

fn write_str(value: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.bytes());
}

fn write_int(value: i64, out: &mut Vec<u8>) {
    match i32::try_from(value) {
        Ok(value) => {
            out.push(b'J');
            out.extend(value.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(value.to_le_bytes());
        }
    }
}

fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}
