//! `explode`: a row for each item of a list, such as five captions of one image.
//!
//! In: a raw row. Out, one after the other: the row with one item in the place of the list. A cell that is no list, or an empty one, is
//! one row.
//!
//! Every column is read, whichever is asked for: a raw row that cannot be read is one row, otherwise as many as its list has items,
//! and text and pixels line up only if both see the same failures.

use super::value::Value;

/// A raw row that gives several rows; nothing but the one cell changes from one to the next.
pub struct Exploded<'a> {
    row: Value<'a>,
    /// Which field of the row it is, and the items that are left, the next one last.
    field: Option<usize>,
    items: Vec<Value<'a>>,
    /// How many items there were.
    count: usize,
}

impl<'a> Exploded<'a> {
    pub fn new(mut row: Value<'a>, column: &str) -> Self {
        let (mut at, mut items) = (None, Vec::new());
        if let Value::Object(fields) = &mut row
            && let Some((index, (_, cell))) =
                fields.iter_mut().enumerate().rev().find(|(_, (name, _))| name == column)
            && let Value::List(list) = cell
        {
            items = std::mem::take(list);
            *cell = Value::Null;
            at = Some(index);
        }
        let count = items.len();
        items.reverse();
        Self { row, field: at.filter(|_| count > 0), items, count }
    }

    /// What is left, borrowing nothing: for a row whose items do not all go into one batch.
    pub fn into_owned(self) -> Exploded<'static> {
        let Self { row, field, items, count } = self;
        let items = items.into_iter().map(Value::into_owned).collect();
        Exploded { row: row.into_owned(), field, items, count }
    }

    /// The next row, and which item it holds; `None` where there is no list.
    pub fn row(&mut self) -> (&Value<'a>, Option<usize>) {
        let item = self.items.pop();
        let number = self.count - self.items.len();
        if let (Some(field), Value::Object(fields)) = (self.field, &mut self.row)
            && let Some((_, cell)) = fields.get_mut(field)
        {
            *cell = item.unwrap_or(Value::Null);
            return (&self.row, number.checked_sub(1));
        }
        (&self.row, None)
    }

    /// Whether items are left.
    pub fn more(&self) -> bool {
        !self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(json: &str) -> Vec<(Value<'static>, Option<usize>)> {
        let mut exploded = Exploded::new(serde_json::from_str(json).unwrap(), "caption");
        let mut found = Vec::new();
        loop {
            let (row, number) = exploded.row();
            found.push((row.get("caption").cloned().unwrap_or(Value::Null).into_owned(), number));
            if !exploded.more() {
                return found;
            }
            if found.len() == 2 {
                exploded = exploded.into_owned();
            }
        }
    }

    #[test]
    fn each_item_is_a_row_in_order() {
        let text = |text: &'static str| Value::Text(text.into());
        let rows = items(r#"{"caption": ["一", "二", "三"], "id": 7}"#);
        assert_eq!(rows, [(text("一"), Some(0)), (text("二"), Some(1)), (text("三"), Some(2))]);
        assert_eq!(items(r#"{"caption": ["one"]}"#), [(text("one"), Some(0))]);
        assert_eq!(items(r#"{"caption": "plain"}"#), [(text("plain"), None)]);
        for nothing in [r#"{"caption": []}"#, r#"{"caption": null}"#, "{}"] {
            assert_eq!(items(nothing), [(Value::Null, None)], "{nothing}");
        }
    }

    #[test]
    fn a_long_list_takes_time_in_proportion() {
        let captions: Vec<String> = (0..100_000).map(|n| format!("\"{n}\"")).collect();
        let json = format!("{{\"caption\": [{}]}}", captions.join(","));
        assert_eq!(items(&json).len(), 100_000);
    }
}
