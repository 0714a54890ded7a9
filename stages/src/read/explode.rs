//! `explode`: a row for each item of a list, such as five captions of one picture.
//!
//! In: a raw row and the number of an item. Out: the row in which the column holds that item alone. A cell that is no list, or an
//! empty one, is one row.

use super::value::Value;

/// One of the rows that a raw row becomes.
pub struct Item<'a> {
    pub row: Value<'a>,
    /// Which item of the list it holds; `None` where there is no list.
    pub number: Option<usize>,
    /// Whether items are left.
    pub more: bool,
}

/// The row of item `number`.
pub fn nth<'a>(mut row: Value<'a>, column: &str, number: usize) -> Item<'a> {
    let (mut of_list, mut more) = (None, false);
    if let Value::Object(fields) = &mut row
        && let Some((_, cell)) = fields.iter_mut().rev().find(|(name, _)| name == column)
        && let Value::List(items) = cell
    {
        more = number + 1 < items.len();
        of_list = (number < items.len()).then_some(number);
        *cell = of_list.map_or(Value::Null, |number| items.swap_remove(number));
    }
    Item { row, number: of_list, more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(json: &str) -> Vec<(Value<'_>, Option<usize>)> {
        let mut found = Vec::new();
        loop {
            let Item { row, number, more } = nth(serde_json::from_str(json).unwrap(), "caption", found.len());
            found.push((row.get("caption").cloned().unwrap_or(Value::Null), number));
            if !more {
                return found;
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
}
