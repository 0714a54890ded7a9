//! Stages that must agree, and do not.

use super::{GOOD, load};

fn messages(text: &str) -> Vec<String> {
    let error = load(text).err();
    error
        .iter()
        .flat_map(super::super::problem::ManifestError::problems)
        .map(|problem| problem.message().to_owned())
        .collect()
}

fn train(name: &str, more: &str) -> String {
    format!("\n[stages.{name}]\nkind = \"train\"\nfrom = \"shards\"\n{more}\n")
}

#[test]
fn both_places_are_drawn_where_two_stages_disagree() {
    let reported = super::reported(&(GOOD.to_owned() + &train("large", "size = 48")));
    assert!(
        reported.contains("`pixels` (resize) and `large` (train) do not agree on the size of an image"),
        "{reported}"
    );
    assert!(
        reported.contains("32 pixels")
            && reported.contains("48 pixels")
            && reported.contains("Set both alike."),
        "{reported}"
    );
    assert!(load(&(GOOD.to_owned() + &train("alike", "size = 32"))).is_ok());
}

#[test]
fn whoever_disagrees_with_the_first_is_reported_once_and_nothing_is_compared_behind_a_job() {
    let two =
        GOOD.to_owned() + &train("large", "size = 48") + &train("on", "size = 40\ninit_from = \"large\"");
    let expected = ["`pixels` (resize) and `large` (train)", "`pixels` (resize) and `on` (train)"];
    let reported = messages(&two);
    assert_eq!(reported.len(), 2, "{reported:?}");
    for pair in expected {
        assert!(reported.iter().any(|message| message.starts_with(pair)), "{pair}: {reported:?}");
    }
}
