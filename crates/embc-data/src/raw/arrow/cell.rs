//! A cell of an array, as a CSV file of the same table has it.

use super::of;
use crate::raw::{Field, words};
use polars_arrow::array::{
    Array, BinaryViewArray, BooleanArray, PrimitiveArray, Utf8Array, Utf8ViewArray,
};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit};
use std::io::Write;

pub(super) fn is_number(dtype: &ArrowDataType) -> bool {
    use ArrowDataType::{
        Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64,
    };
    matches!(
        dtype,
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64
    )
}

/// Refuses a type that has no text.
pub(super) fn check(field: &Field, dtype: &ArrowDataType) -> std::result::Result<(), String> {
    use ArrowDataType as T;
    let name = &field.name;
    match dtype {
        T::List(_) | T::LargeList(_) | T::FixedSizeList(..) => {
            Err(format!("{name} holds lists: name it in columns.multi, with any separator"))
        }
        T::Struct(_) | T::Map(..) | T::Union(_) => Err(format!(
            "{name} holds records of several values, which are no column: take them apart first"
        )),
        T::Boolean | T::Null | T::Utf8 | T::LargeUtf8 | T::Utf8View | T::BinaryView => Ok(()),
        T::Decimal(_, scale) if *scale > 38 => Err(format!("{name} has {scale} decimals")),
        T::Date32 | T::Timestamp(..) | T::Decimal(..) => Ok(()),
        number if is_number(number) => Ok(()),
        other => Err(format!("{name} is of type {other:?}, which embc does not read")),
    }
}

/// The cell of row `i` as a CSV file has it; nothing for null.
pub(super) fn write_cell(array: &dyn Array, i: usize, cell: &mut Vec<u8>) {
    use ArrowDataType as T;
    if array.is_null(i) {
        return;
    }
    macro_rules! number {
        ($type:ty) => {{
            let number = of::<PrimitiveArray<$type>>(array).expect("of its type").value(i);
            write!(cell, "{number}").expect("memory")
        }};
    }
    macro_rules! text {
        ($type:ty) => {
            cell.extend_from_slice(of::<$type>(array).expect("of its type").value(i).as_ref())
        };
    }
    match array.dtype() {
        T::Boolean => {
            let value = of::<BooleanArray>(array).expect("of its type").value(i);
            cell.extend_from_slice(if value { b"true" } else { b"false" });
        }
        T::Utf8View => text!(Utf8ViewArray),
        T::Utf8 => text!(Utf8Array<i32>),
        T::LargeUtf8 => text!(Utf8Array<i64>),
        T::BinaryView => text!(BinaryViewArray),
        T::Int8 => number!(i8),
        T::Int16 => number!(i16),
        T::Int32 => number!(i32),
        T::Int64 => number!(i64),
        T::UInt8 => number!(u8),
        T::UInt16 => number!(u16),
        T::UInt32 => number!(u32),
        T::UInt64 => number!(u64),
        T::Float32 => number!(f32),
        T::Float64 => number!(f64),
        T::Date32 => {
            let days = of::<PrimitiveArray<i32>>(array).expect("of its type").value(i);
            words::write_date((i64::from(days) * 86_400, 0), false, cell);
        }
        T::Timestamp(unit, _) => {
            let count = of::<PrimitiveArray<i64>>(array).expect("of its type").value(i);
            let a_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            let part = count.rem_euclid(a_second) * (1_000_000_000 / a_second);
            words::write_date((count.div_euclid(a_second), part as u32), true, cell);
        }
        T::Decimal(_, scale) => {
            let digits = of::<PrimitiveArray<i128>>(array).expect("of its type").value(i);
            write_decimal(digits, *scale, cell);
        }
        _ => {}
    }
}

fn write_decimal(digits: i128, scale: usize, cell: &mut Vec<u8>) {
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, part) = text.split_at(text.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    write!(cell, "{sign}{whole}{point}{part}").expect("memory");
}
