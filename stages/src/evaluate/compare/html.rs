//! A comparison as one page: the numbers, and the questions that one side answers rightly and the other wrongly.

use super::Comparison;
use crate::evaluate::page;
use llavm_pipeline::StageError;
use serde::Serialize;

const TEMPLATE: &str = include_str!("compare.html");

#[derive(Serialize)]
struct Page<'a> {
    css: &'static str,
    c: &'a Comparison,
}

/// The page.
pub fn render(comparison: &Comparison) -> Result<String, StageError> {
    page::fill("compare.html", TEMPLATE, &Page { css: page::STYLE, c: comparison })
}
