use super::cause::changes;
use crate::store::key::{InputPart, KeyParts};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

fn parts() -> impl Strategy<Value = KeyParts> {
    let text = "[a-c]{0,3}";
    let input = (text, prop::collection::vec(text, 0..3), text)
        .prop_map(|(stage, columns, digest)| InputPart { stage, columns, digest });
    let params = prop::collection::btree_map(text, 0..3_i64, 0..3).prop_map(|map| json!(map));
    let named = || prop::collection::btree_map(text, text, 0..3);
    (text, 0..3_u32, params, named(), prop::collection::vec(input, 0..3), named()).prop_map(
        |(kind, version, params, resources, inputs, context)| KeyParts {
            kind,
            version,
            params,
            resources,
            inputs,
            context,
        },
    )
}

/// The parts without the stage names, which are for people.
fn unnamed(mut parts: KeyParts) -> KeyParts {
    parts.inputs.iter_mut().for_each(|input| input.stage.clear());
    parts
}

proptest! {
    #[test]
    fn keys_are_equal_exactly_when_their_parts_are(a in parts(), b in parts()) {
        prop_assert_eq!(a.key() == b.key(), unnamed(a.clone()) == unnamed(b.clone()));
        prop_assert_eq!(changes(&b, &a).is_empty(), a.key() == b.key());
    }

    #[test]
    fn any_single_change_of_a_part_changes_the_key(parts in parts(), which in 0..6_usize) {
        let mut other = parts.clone();
        match which {
            0 => other.kind.push('x'),
            1 => other.version += 1,
            2 => other.params["x"] = json!(9),
            3 => drop(other.resources.insert("x".into(), "x".into())),
            4 => other.inputs.push(InputPart { stage: String::new(), columns: vec![], digest: "x".into() }),
            _ => drop(other.context.insert("x".into(), "x".into())),
        }
        prop_assert_ne!(parts.key(), other.key());
        prop_assert_eq!(changes(&parts, &other).len(), 1);
    }
}

#[test]
fn the_order_in_which_parameters_are_written_and_the_names_of_inputs_do_not_matter() {
    let input =
        |stage: &str| InputPart { stage: stage.into(), columns: vec!["text".into()], digest: "d".into() };
    let with = |params: &str, stage: &str| KeyParts {
        kind: "upper".into(),
        version: 1,
        params: serde_json::from_str(params).unwrap(),
        resources: BTreeMap::new(),
        inputs: vec![input(stage)],
        context: BTreeMap::new(),
    };
    let a = with(r#"{"x": {"b": 1, "a": [2, 3]}, "y": 4}"#, "rows");
    let b = with(r#"{"y": 4, "x": {"a": [2, 3], "b": 1}}"#, "lines");
    assert_eq!(a.key(), b.key());
    let c = with(r#"{"y": 4, "x": {"a": [3, 2], "b": 1}}"#, "rows");
    assert_ne!(a.key(), c.key());
}

#[test]
fn the_key_of_given_parts_never_changes() {
    // A new value here means that every store in the world is made again: raise `FORMAT` only on purpose.
    let parts = KeyParts {
        kind: "upper".into(),
        version: 3,
        params: json!({"suffix": "!", "n": 0.5}),
        resources: BTreeMap::from([("words".to_owned(), "abc".to_owned())]),
        inputs: vec![InputPart { stage: "rows".into(), columns: vec!["text".into()], digest: "def".into() }],
        context: BTreeMap::new(),
    };
    insta::assert_snapshot!(parts.key(), @"fbea860d3f1745a2c4481fd531fd557ae5f94fda3029c993994bcdec93b532b3");
}
