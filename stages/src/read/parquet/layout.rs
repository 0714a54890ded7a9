//! Where the images lie in a Parquet file's nested columns.

use arrow::datatypes::{DataType, Schema};

/// The leaf columns of an image column whose images are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The leaf of the bytes.
    pub bytes: usize,
    /// The leaf of the struct's `path`, which stands in where bytes are null.
    pub path: Option<usize>,
}

impl Layout {
    /// Finds the column `name`, a root or a dotted path through structs. `None` where cells hold anything but bytes, or
    /// where the path goes through a list.
    pub fn find(schema: &Schema, name: &str) -> Option<Self> {
        let mut leaf = 0;
        for field in schema.fields() {
            let rest = name.strip_prefix(field.name().as_str());
            match rest {
                Some("") => return Self::of(field.data_type(), leaf),
                Some(rest) if rest.starts_with('.') => {
                    if let Some(found) = Self::inside(field.data_type(), leaf, &rest[1..]) {
                        return Some(found);
                    }
                }
                _ => {}
            }
            leaf += leaves(field.data_type());
        }
        None
    }

    fn inside(data_type: &DataType, first: usize, name: &str) -> Option<Self> {
        let DataType::Struct(fields) = data_type else { return None };
        Self::find(&Schema::new(fields.clone()), name).map(|found| found.behind(first))
    }

    fn behind(self, leaves: usize) -> Self {
        Self { bytes: self.bytes + leaves, path: self.path.map(|path| path + leaves) }
    }

    fn of(data_type: &DataType, first: usize) -> Option<Self> {
        match data_type {
            DataType::Binary => Some(Self { bytes: first, path: None }),
            DataType::List(item) | DataType::LargeList(item) => Self::of(item.data_type(), first),
            DataType::Struct(fields) => {
                let leaf = |name: &str, wanted: &DataType| {
                    let at = fields.iter().position(|field| field.name() == name)?;
                    let before: usize = fields[..at].iter().map(|field| leaves(field.data_type())).sum();
                    Some((fields[at].data_type() == wanted).then_some(first + before))
                };
                let path = match leaf("path", &DataType::Utf8) {
                    None => None,
                    Some(path) => Some(path?),
                };
                Some(Self { bytes: leaf("bytes", &DataType::Binary)??, path })
            }
            _ => None,
        }
    }
}

/// How many leaf columns a type has.
fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field.data_type())).sum(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => leaves(item.data_type()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;

    fn schema() -> Schema {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let image = || {
            let fields = [
                field("width", DataType::Int64),
                field("bytes", DataType::Binary),
                field("path", DataType::Utf8),
            ];
            DataType::Struct(fields.into_iter().collect())
        };
        let list = |item| DataType::List(field("item", item).into());
        Schema::new(vec![
            field("text", DataType::Utf8),
            field("images", list(image())),
            field("raw", DataType::Binary),
            field("image", image()),
            field("raws", list(DataType::Binary)),
        ])
    }

    #[test]
    fn bytes_are_found_in_lists_and_structs() {
        let find = |name: &str| Layout::find(&schema(), name).map(|layout| (layout.bytes, layout.path));
        assert_eq!(find("images"), Some((2, Some(3))));
        assert_eq!(find("raw"), Some((4, None)));
        assert_eq!(find("image"), Some((6, Some(7))));
        assert_eq!(find("image.bytes"), Some((6, None)));
        assert_eq!(find("raws"), Some((8, None)));
        for other in ["text", "images.bytes", "image.path", "raws.0", "gone"] {
            assert_eq!(find(other), None, "{other}");
        }
    }
}
