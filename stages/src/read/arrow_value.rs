//! Cells of Arrow arrays as [`Value`]s: every string, binary, list and dictionary variant reads the same.

use super::raw::RawColumn;
use super::value::Value;
use crate::sql::ScalarType;
use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::borrow::Cow;

/// Row `row` of a batch as an object of its columns.
pub fn row_value(batch: &RecordBatch, row: usize) -> Value<'_> {
    let fields = batch.schema_ref().fields().iter().zip(batch.columns());
    Value::Object(
        fields
            .map(|(field, column)| (Cow::Borrowed(field.name().as_str()), cell_value(column, row)))
            .collect(),
    )
}

/// The column and, under dotted paths, the fields of its structs.
pub fn flatten(prefix: &str, field: &Field, columns: &mut Vec<RawColumn>) {
    let name = format!("{prefix}{}", field.name());
    columns.push(RawColumn::new(name.as_str(), type_name(field.data_type())));
    if let DataType::Struct(fields) = field.data_type() {
        fields.iter().for_each(|field| flatten(&format!("{name}."), field, columns));
    }
}

/// Element `row` of an array. Types without a counterpart (dates) become their text.
pub fn cell_value(array: &dyn Array, row: usize) -> Value<'_> {
    if row >= array.len() || array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().value(row)),
        DataType::Struct(_) => object(array.as_struct(), row),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => list(array, row),
        DataType::Dictionary(..) => dictionary(array, row),
        DataType::Map(..) => map(array, row),
        DataType::ListView(_) | DataType::LargeListView(_) => list_view(array, row),
        _ => number(array, row).unwrap_or_else(|| displayed(array, row)),
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(Cow::Borrowed(bytes))
}

fn object(array: &StructArray, row: usize) -> Value<'_> {
    let fields = array.fields().iter().zip(array.columns());
    Value::Object(
        fields
            .map(|(field, column)| (Cow::Borrowed(field.name().as_str()), cell_value(column, row)))
            .collect(),
    )
}

fn list(array: &dyn Array, row: usize) -> Value<'_> {
    let (values, range) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            (list.values(), offsets[row] as usize..offsets[row + 1] as usize)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let offsets = list.value_offsets();
            (list.values(), offsets[row] as usize..offsets[row + 1] as usize)
        }
        _ => {
            let list = array.as_fixed_size_list();
            let start = list.value_offset_at(row);
            (list.values(), start..start + list.value_length() as usize)
        }
    };
    Value::List(range.map(|item| cell_value(values, item)).collect())
}

fn list_view(array: &dyn Array, row: usize) -> Value<'_> {
    let (values, start, length) = if let DataType::ListView(_) = array.data_type() {
        let list = array.as_list_view::<i32>();
        (list.values(), list.value_offset(row) as usize, list.value_size(row) as usize)
    } else {
        let list = array.as_list_view::<i64>();
        (list.values(), list.value_offset(row) as usize, list.value_size(row) as usize)
    };
    Value::List((start..start + length).map(|item| cell_value(values, item)).collect())
}

/// A map as a struct of its keys.
fn map(array: &dyn Array, row: usize) -> Value<'_> {
    let map = array.as_map();
    let offsets = map.value_offsets();
    let entry = |item: usize| {
        let key = cell_value(map.keys(), item);
        (Cow::Owned(key.as_text().unwrap_or_default().into_owned()), cell_value(map.values(), item))
    };
    Value::Object((offsets[row] as usize..offsets[row + 1] as usize).map(entry).collect())
}

fn dictionary(array: &dyn Array, row: usize) -> Value<'_> {
    let dictionary = array.as_any_dictionary();
    let key = number(dictionary.keys(), row);
    match key {
        Some(Value::Int(key)) => cell_value(dictionary.values(), key as usize),
        _ => Value::Null,
    }
}

fn number(array: &dyn Array, row: usize) -> Option<Value<'static>> {
    Some(match array.data_type() {
        DataType::Int8 => Value::Int(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Value::Int(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Value::Int(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Value::Int(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Value::Int(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Value::Int(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float16 => single(array.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => single(array.as_primitive::<Float32Type>().value(row)),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => match displayed(array, row) {
            Value::Text(text) => Value::Number(Cow::Owned(text.into_owned())),
            _ => Value::Null,
        },
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        _ => return None,
    })
}

/// A float of 32 bits with the digits that tell it apart from its neighbours: 0.1, not 0.10000000149011612.
fn single(number: f32) -> Value<'static> {
    match serde_json::to_string(&number) {
        Ok(text) if number.is_finite() => Value::Number(Cow::Owned(text)),
        _ => Value::Float(number.into()),
    }
}

fn displayed(array: &dyn Array, row: usize) -> Value<'_> {
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(array, &options).and_then(|shown| shown.value(row).try_to_string());
    shown.map_or(Value::Null, |text| Value::Text(Cow::Owned(text)))
}

/// The type as error messages name it: `list<struct<bytes: binary, path: string>>`.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".to_owned()
        }
        DataType::Boolean => "bool".to_owned(),
        other if other.is_integer() => "int".to_owned(),
        other if other.is_floating() => "float".to_owned(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), type_name(field.data_type())))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Map(..) => "struct<…>".to_owned(),
        other if other.is_decimal() => "float".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

/// What a predicate sees of a column of that type name; `None` for nested and binary columns.
pub fn scalar_type(kind: &str) -> Option<ScalarType> {
    match kind {
        "bool" => Some(ScalarType::Bool),
        "int" => Some(ScalarType::Int),
        "float" => Some(ScalarType::Float),
        "binary" => None,
        _ if kind.starts_with("list<") || kind.starts_with("struct<") => None,
        _ => Some(ScalarType::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, BinaryArray, DictionaryArray, Int8Array, StringArray};
    use arrow::compute::cast;
    use std::sync::Arc;

    #[test]
    fn every_string_variant_reads_as_the_same_value() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("图"), None]));
        for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
            let array = cast(&plain, &data_type).unwrap();
            assert_eq!(cell_value(&array, 0), Value::Text("图".into()), "{data_type}");
            assert_eq!(cell_value(&array, 1), Value::Null, "{data_type}");
        }
        let keys = Int8Array::from(vec![Some(0), None]);
        let array = DictionaryArray::new(keys, Arc::new(StringArray::from(vec!["图"])));
        assert_eq!(cell_value(&array, 0), Value::Text("图".into()));
        assert_eq!(cell_value(&array, 1), Value::Null);
    }

    #[test]
    fn every_binary_variant_reads_as_the_same_value() {
        let plain: ArrayRef = Arc::new(BinaryArray::from(vec![b"\xff\xd8".as_slice()]));
        for data_type in [DataType::Binary, DataType::LargeBinary, DataType::BinaryView] {
            let array = cast(&plain, &data_type).unwrap();
            assert_eq!(cell_value(&array, 0), Value::Bytes(b"\xff\xd8".as_slice().into()), "{data_type}");
        }
    }

    #[test]
    fn a_sliced_list_keeps_its_own_rows() {
        use arrow::datatypes::Int32Type;
        let rows = [Some(vec![Some(1)]), Some(vec![Some(2), None]), None];
        let list = arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(rows);
        let sliced = list.slice(1, 2);
        assert_eq!(cell_value(&sliced, 0), Value::List(vec![Value::Int(2), Value::Null]));
        assert_eq!(cell_value(&sliced, 1), Value::Null);
    }
}
